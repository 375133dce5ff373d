// The slider, the stop switch and what they say. Percents are spaced as a ramp climbs: slowly at first.
import { api } from "./api.js";
import { byId, el, toast } from "../shared/dom.js";
import { count } from "./format.js";

const PERCENTS = [0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 3, 5, 7.5, 10, 15, 20, 30, 40, 50, 60, 75, 90, 100];
const TICKS = [0, 0.1, 1, 10, 100];

const nearest = (percent) =>
  PERCENTS.reduce((best, stop, at) => (Math.abs(stop - percent) < Math.abs(PERCENTS[best] - percent) ? at : best), 0);

export class Rollout {
  percent = 0;
  paused = false;
  #changed;
  #previewed;
  #busy = false;
  #wanted = null;

  /** `changed` runs when another feed may now look different, `previewed` while the thumb moves. */
  constructor(changed, previewed) {
    this.#changed = changed;
    this.#previewed = previewed;
    const slider = byId("slider");
    slider.max = PERCENTS.length - 1;
    slider.addEventListener("input", () => this.#draw(PERCENTS[slider.value]));
    slider.addEventListener("change", () => this.#save(PERCENTS[slider.value]));
    slider.addEventListener("pointerup", () => slider.blur()); // arrow keys go back to the feed
    byId("stop").addEventListener("click", () => this.#switch());
    byId("ticks").replaceChildren(
      ...TICKS.map((tick) => el("span", { "--at": `${(PERCENTS.indexOf(tick) / (PERCENTS.length - 1)) * 100}%` }, String(tick))),
    );
  }

  /** The state as the service has it, whoever changed it. */
  show({ percent, paused }) {
    if (this.#busy) return;
    this.paused = paused;
    this.#draw(percent);
    const stop = byId("stop");
    stop.setAttribute("aria-pressed", String(paused));
    stop.querySelector("span").textContent = paused ? "Let ads run" : "Stop all ads";
    stop.querySelector("use").setAttribute("href", paused ? "#i-play" : "#i-stop");
    stop.closest(".card").classList.toggle("is-stopped", paused);
  }

  /** While a plan is under way it alone moves the percent. */
  hold(going) {
    byId("slider").disabled = going;
  }

  #draw(percent) {
    this.percent = percent;
    const at = nearest(percent);
    const slider = byId("slider");
    slider.value = at;
    slider.style.setProperty("--fill", `${(at / (PERCENTS.length - 1)) * 100}%`);
    slider.setAttribute("aria-valuetext", `${percent} percent`);
    byId("percent").textContent = count(percent);
    if (!this.paused) byId("rollout-note").textContent = percent === 0 ? "Nobody sees ads." : "Sticky: who is in now stays in as it grows.";
    this.#previewed();
  }

  /** One change is under way at a time; of those that wait, only the last one counts. */
  async #save(percent) {
    this.#wanted = percent;
    if (this.#busy) return;
    this.#busy = true;
    try {
      let rollout;
      while (this.#wanted !== null) {
        const next = this.#wanted;
        this.#wanted = null;
        rollout = await api.setPercent(next);
      }
      this.#busy = false;
      this.show(rollout);
      this.#changed();
    } catch (error) {
      toast(error.message);
    } finally {
      this.#busy = false;
      this.#wanted = null;
    }
  }

  async #switch() {
    const pausing = !this.paused;
    byId("stop").disabled = true;
    try {
      const { applied, replicas } = await (pausing ? api.pause() : api.resume());
      this.show({ percent: this.percent, paused: pausing });
      byId("rollout-note").textContent = `${pausing ? "Stopped" : "Running"} on ${applied} of ${replicas} ${replicas === 1 ? "replica" : "replicas"}.`;
      this.#changed();
    } catch (error) {
      toast(error.message);
    } finally {
      byId("stop").disabled = false;
    }
  }
}
