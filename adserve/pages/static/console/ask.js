// The one dialog: what is about to happen, and why.
import { byId } from "../shared/dom.js";

/**
 * Asks, and runs `go(reason)` while the dialog still stands, so that a refusal can be read there.
 * `reason` says whether one is needed; `harsh` marks what takes ads away or cannot be undone.
 */
export function ask({ title, text, action, reason = true, harsh = false }, go) {
  const dialog = byId("ask");
  const field = byId("ask-reason");
  const button = byId("ask-do");
  const fault = byId("ask-fault");
  byId("ask-title").textContent = title;
  byId("ask-text").textContent = text;
  button.textContent = action;
  button.disabled = false;
  button.classList.toggle("is-harsh", harsh);
  fault.textContent = "";
  field.value = "";
  field.required = reason;
  field.hidden = byId("ask-label").hidden = !reason;
  dialog.querySelector("form").onsubmit = async (event) => {
    if (event.submitter?.value !== "do") return;
    event.preventDefault();
    button.disabled = true;
    try {
      await go(field.value.trim());
      dialog.close();
    } catch (error) {
      fault.textContent = error.message;
      button.disabled = false;
    }
  };
  dialog.showModal();
  (reason ? field : button).focus();
}
