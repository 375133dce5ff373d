// Colours by day and night, and the sheet that a small screen keeps the panels in.
import { byId } from "./dom.js";

const KEY = "adserve-theme";
const night = matchMedia("(prefers-color-scheme: dark)");
const small = matchMedia("(max-width: 819px)");

export function setUpTheme() {
  const buttons = document.querySelectorAll("[data-theme-toggle]");
  const dark = () => (document.documentElement.dataset.theme ?? (night.matches ? "dark" : "light")) === "dark";
  const label = () => buttons.forEach((button) => button.setAttribute("aria-label", dark() ? "Light colours" : "Dark colours"));
  const kept = localStorage.getItem(KEY);
  if (kept === "dark" || kept === "light") document.documentElement.dataset.theme = kept;
  label();
  night.addEventListener("change", label);
  buttons.forEach((button) => button.addEventListener("click", () => {
    document.documentElement.dataset.theme = dark() ? "light" : "dark";
    localStorage.setItem(KEY, document.documentElement.dataset.theme);
    label();
  }));
}

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
