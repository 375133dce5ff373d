// The sheet that a small screen keeps the panels in.
import { byId } from "../shared/dom.js";

const small = matchMedia("(max-width: 819px)");

/** `moved(open)` runs when the sheet covers or leaves the player. */
export class Sheet {
  #moved;
  #from = null;

  constructor(moved) {
    this.#moved = moved;
    byId("sheet-close").addEventListener("click", () => this.close());
    document.addEventListener("keydown", ({ key }) => key === "Escape" && this.close());
    small.addEventListener("change", () => this.close());
  }

  open() {
    this.#from = document.activeElement;
    byId("sheet").classList.add("is-open");
    byId("sheet-close").focus({ preventScroll: true });
    this.#moved(true);
  }

  close() {
    if (!byId("sheet").classList.contains("is-open")) return;
    byId("sheet").classList.remove("is-open");
    this.#from?.focus({ preventScroll: true });
    this.#moved(false);
  }
}
