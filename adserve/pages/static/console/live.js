// What the pages of the console have in common: they read again and again, and say whether they can.
import { api } from "./api.js";
import { byId } from "../shared/dom.js";
import { clock } from "./words.js";

/** Reads now, every so often, and when the page comes into view; answers what reads at once. `advice` is what can be done while
 * nothing can be read. */
export function live(read, everyMs, advice = "") {
  let heard = null;
  let turn = null;

  /** One reading is under way at a time; who asks meanwhile gets the next one. */
  function refresh() {
    turn = (turn ?? Promise.resolve()).then(read).then(connected, lost);
    return turn;
  }

  function connected() {
    heard = new Date();
    byId("live").className = "live is-on";
    byId("live").textContent = `Live, ${clock(heard)}`;
    byId("banner").hidden = true;
  }

  function lost(error) {
    if (error.status === 401) return location.reload();
    byId("live").className = "live is-off";
    byId("live").textContent = "Not connected";
    byId("banner").hidden = false;
    byId("banner").textContent = `${error.message} ${heard ? `What you see is of ${clock(heard)}.` : ""} Trying again every few seconds.${advice}`;
  }

  async function loop() {
    while (true) {
      if (!document.hidden) await refresh();
      await new Promise((done) => setTimeout(done, everyMs));
    }
  }

  document.addEventListener("visibilitychange", () => document.hidden || refresh());
  byId("sign-out").addEventListener("click", () => api.signOut().finally(() => location.reload()));
  loop();
  return refresh;
}
