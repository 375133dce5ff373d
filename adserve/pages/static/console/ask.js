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
  const form = dialog.querySelector("form");
  const submit = async (event) => {
    if (event.submitter?.value !== "do") return;
    event.preventDefault();
    button.disabled = true;
    const said = await go(field.value.trim()).then(() => null, (error) => error.message);
    if (form.onsubmit !== submit) return; // it was left meanwhile, and asks of something else now
    if (said === null) return dialog.close();
    fault.textContent = said;
    button.disabled = false;
  };
  form.onsubmit = submit;
  dialog.showModal();
  (reason ? field : button).focus();
}
