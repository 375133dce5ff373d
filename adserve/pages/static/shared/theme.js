// Colours by day and night: the system's, unless the person has chosen.
const KEY = "adserve-theme";
const night = matchMedia("(prefers-color-scheme: dark)");

/** Says `colours` to the document whenever they change: what is drawn on a canvas does not by itself. */
export function setUpTheme() {
  const buttons = document.querySelectorAll("[data-theme-toggle]");
  const dark = () => (document.documentElement.dataset.theme ?? (night.matches ? "dark" : "light")) === "dark";
  const label = () => {
    buttons.forEach((button) => button.setAttribute("aria-label", dark() ? "Light colours" : "Dark colours"));
    document.dispatchEvent(new Event("colours"));
  };
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
