// Exchanges a key for a session, and forgets it.
import { api } from "./api.js";
import { byId } from "../shared/dom.js";
import { setUpTheme } from "../shared/theme.js";

setUpTheme();

byId("sign-in").addEventListener("submit", async (event) => {
  event.preventDefault();
  const field = byId("key");
  const button = event.target.querySelector("button");
  const fault = byId("fault");
  fault.textContent = "";
  button.disabled = true;
  try {
    await api.signIn(field.value);
    location.reload();
  } catch (error) {
    fault.textContent = error.status === 403 ? "This key is neither an operator's nor a reviewer's." : error.message;
    button.disabled = false;
    field.select();
  }
});
