// The slider's small ramp: a plan of four steps that moves it, and the harm that takes it back.
import { api } from "./api.js";
import { byId, el, toast } from "../shared/dom.js";
import { count } from "./format.js";

const SAYS = { completed: "The ramp has arrived.", rolled_back: "Taken back.", aborted: "The ramp was ended.", paused: "The plan is paused: a person has to resume it.", held: "Held until a person looks.", scheduled: "About to start…" };

export class Ramp {
  #held;
  #plan = null;

  /** `held(going)` is told whether a plan moves the percent. */
  constructor(held) {
    this.#held = held;
    byId("ramp-start").addEventListener("click", () => this.#do(api.startRamp));
    byId("ramp-end").addEventListener("click", () => this.#do(api.endRamp));
    byId("ramp-harm").addEventListener("click", () => this.#do(() => api.plantHarm(!this.#plan?.harm)));
  }

  /** The newest plan as the service has it; null before the first. */
  show(plan) {
    this.#plan = plan;
    const going = Boolean(plan && !plan.ended);
    this.#held(going);
    byId("ramp-start").hidden = going;
    byId("ramp-start").textContent = plan ? "Ramp up again" : "Ramp up slowly";
    byId("ramp-harm").hidden = byId("ramp-end").hidden = !going;
    byId("ramp-harm").setAttribute("aria-pressed", String(Boolean(plan?.harm)));
    byId("ramp-steps").hidden = !plan;
    byId("ramp-note").hidden = !plan;
    if (!plan) return;
    byId("ramp").classList.toggle("is-back", plan.status === "rolled_back");
    byId("ramp-steps").replaceChildren(...plan.steps.map((step) => this.#step(step, plan)));
    byId("ramp-note").textContent = this.#words(plan);
  }

  #step({ percent, state, exposed, control }, plan) {
    const done = plan.ended && state === "current" ? (plan.status === "completed" ? "passed" : "stopped") : state;
    const seen = exposed === null ? "\u2013" : `${count(exposed)} vs ${count(control)}`;
    return el("li", { class: `is-${done}`, "--rise": String(percent / 100), "aria-current": done === "current" && "step" }, el("span", { class: "ramp-block" }), el("strong", {}, `${percent} %`), el("span", { class: "aside", title: "viewers with ads, and those they are compared with" }, seen));
  }

  #words(plan) {
    if (plan.status === "rolled_back") return `Taken back: ${plan.reason}.`;
    if (plan.ended || SAYS[plan.status]) return SAYS[plan.status];
    return plan.verdict?.words ?? "Looks at its viewers every two seconds…";
  }

  async #do(call) {
    try {
      await call();
    } catch (error) {
      toast(error.message);
    }
  }
}
