// The whole feed in one line: a tick per status, a tall one per ad, gaps between authors.
import { byId, el } from "../shared/dom.js";

export class Strip {
  #ticks = new Map();

  load(items) {
    const seen = items.map((item, at) => {
      const turn = at > 0 && items[at - 1].run !== item.run;
      const tick = el("i", { class: [turn && "is-turn", item.kind === "ad" && "is-ad"].filter(Boolean).join(" ") });
      this.#ticks.set(item, tick);
      return tick;
    });
    this.#ticks = new Map(items.map((item, at) => [item, seen[at]]));
    const ads = items.filter((item) => item.kind === "ad").length;
    byId("strip").setAttribute("aria-label", `${items.length - ads} statuses and ${ads} ads`);
    byId("strip").replaceChildren(...seen);
  }

  mark(current) {
    let before = true;
    for (const [item, tick] of this.#ticks) {
      before = before && item !== current;
      tick.classList.toggle("is-now", item === current);
      tick.classList.toggle("is-seen", before);
    }
  }

  drop(item) {
    this.#ticks.get(item)?.remove();
    this.#ticks.delete(item);
  }
}
