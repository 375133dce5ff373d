// The sample viewers, one dot each, and who is watching from where.
import { api } from "./api.js";
import { byId, el } from "../shared/dom.js";
import { count } from "./format.js";

const CHOICES = {
  country: { ID: "Indonesia", IN: "India", BR: "Brazil", DE: "Germany", GB: "Britain", NG: "Nigeria", US: "United States" },
  language: { en: "English", id: "Indonesian", hi: "Hindi", pt: "Portuguese", de: "German" },
  platform: { android: "Android", ios: "iOS", web: "Web" },
};
const HOME_LANGUAGE = { ID: "id", IN: "hi", BR: "pt", DE: "de", GB: "en", NG: "en", US: "en" };

export class Viewers {
  #sample = [];
  #dots = [];
  #at = 0;
  #changed;
  #admitted;

  /** `changed` runs when somebody else watches; `admitted(bucket)` says whether that bucket is in now. */
  constructor(changed, admitted) {
    this.#changed = changed;
    this.#admitted = admitted;
    const form = byId("context");
    for (const [name, options] of Object.entries(CHOICES)) {
      form.elements[name].replaceChildren(...Object.entries(options).map(([value, text]) => el("option", { value }, text)));
    }
    form.elements.language.value = HOME_LANGUAGE[form.elements.country.value];
    form.addEventListener("change", ({ target }) => {
      if (target.name === "country") form.elements.language.value = HOME_LANGUAGE[target.value];
      this.#changed();
    });
    byId("viewer-previous").addEventListener("click", () => this.step(-1));
    byId("viewer-next").addEventListener("click", () => this.step(1));
    byId("grid").addEventListener("click", ({ target }) => target.dataset.at && this.#pick(Number(target.dataset.at)));
    byId("grid").addEventListener("pointerdown", (event) => event.preventDefault()); // arrow keys stay with the feed
    byId("grid").addEventListener("keydown", (event) => this.#key(event));
  }

  async load() {
    this.#sample = (await api.sample()).viewers;
    this.#dots = this.#sample.map(({ id, holdout }, at) =>
      el("i", { role: "option", id: `viewer-${at}`, "data-at": at, title: id, "aria-label": id, class: holdout ? "is-held" : null }));
    byId("grid").replaceChildren(...this.#dots);
    this.#mark();
  }

  get current() {
    const form = byId("context").elements;
    return {
      viewer: this.#sample[this.#at].id,
      country: form.country.value, language: form.language.value, platform: form.platform.value,
      personalised: form.personalised.checked,
    };
  }

  step(by) {
    this.#pick((this.#at + by + this.#sample.length) % this.#sample.length);
  }

  /** Lights the viewers who are in. */
  light() {
    let lit = 0;
    this.#sample.forEach(({ bucket, holdout }, at) => {
      const admitted = !holdout && this.#admitted(bucket);
      this.#dots[at].classList.toggle("is-in", admitted);
      lit += admitted;
    });
    byId("viewers-count").textContent = `${lit} of ${this.#sample.length} see ads`;
    this.#describe();
  }

  #pick(at) {
    this.#at = at;
    this.#mark();
    this.#changed();
  }

  #mark() {
    this.#dots.forEach((dot, at) => dot.setAttribute("aria-selected", String(at === this.#at)));
    byId("grid").setAttribute("aria-activedescendant", `viewer-${this.#at}`);
    byId("viewer-name").textContent = this.#sample[this.#at].id;
    this.light();
  }

  #describe() {
    const { bucket, holdout, age, interests } = this.#sample[this.#at];
    byId("viewer-profile").textContent = [age, ...interests].join(", ");
    const place = holdout ? "held out" : this.#admitted(bucket) ? "in" : "out";
    byId("viewer-bucket").textContent = `bucket ${count(bucket)} of 10,000 · ${place}`;
  }

  #key(event) {
    const columns = getComputedStyle(byId("grid")).gridTemplateColumns.split(" ").length;
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns };
    if (!steps[event.key]) return;
    event.preventDefault();
    this.step(steps[event.key]);
  }
}
