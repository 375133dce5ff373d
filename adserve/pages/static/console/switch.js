// The switch that beats every plan: one press pauses at once, letting ads run again asks first.
import { api } from "./api.js";
import { ask } from "./ask.js";
import { byId } from "../shared/dom.js";
import { several } from "./words.js";

export class Switch {
  /** How often it was turned here. */
  turns = 0;
  #changed;
  #paused = null;
  #busy = false;

  constructor(changed) {
    this.#changed = changed;
    byId("switch-button").addEventListener("click", () => this.#press());
  }

  /** The state as the service has it, whoever changed it; asked for after so many turns, so that none of before the last one is shown. */
  show({ paused, applied, replicas }, turns) {
    if (this.#busy || turns !== this.turns) return;
    this.#draw(paused, applied, replicas);
  }

  #draw(paused, applied, replicas) {
    this.#paused = paused;
    const all = applied === replicas && replicas > 0;
    const obey = replicas ? `${applied} of ${several(replicas, "replica")}` : "no replica is heard of";
    byId("switch").classList.toggle("is-paused", paused);
    byId("switch").classList.toggle("is-partial", !all);
    byId("switch-title").textContent = paused ? "All ads are paused" : "Ads are running";
    byId("switch-note").textContent = paused
      ? `Paused on ${obey}. ${all ? "No plan resumes by itself." : "The others stop within 300 s at the latest, when their snapshot is too old."}`
      : `On ${obey}, as far as the percents below allow.`;
    const button = byId("switch-button");
    button.disabled = false;
    button.querySelector("span").textContent = paused ? "Let ads run again" : "Pause all ads";
    button.querySelector("use").setAttribute("href", paused ? "#i-play" : "#i-stop");
  }

  #press() {
    if (!this.#paused) return this.#turn(true).catch((error) => this.#failed(error));
    return ask(
      {
        title: "Let ads run again?",
        text: "Ads are shown again within a second, at the percents that stand. Plans that were paused stay paused until somebody resumes them.",
        action: "Let ads run again",
        reason: false,
      },
      () => this.#turn(false),
    );
  }

  async #turn(pause) {
    const button = byId("switch-button");
    this.#busy = true;
    button.disabled = true;
    button.querySelector("span").textContent = pause ? "Pausing…" : "Resuming…";
    try {
      const { applied, replicas } = await (pause ? api.pause() : api.resume());
      this.#draw(pause, applied, replicas);
    } finally {
      this.#busy = false;
      this.turns += 1;
      button.disabled = false;
      button.querySelector("span").textContent = this.#paused ? "Let ads run again" : "Pause all ads";
      if (!button.matches(":focus")) button.focus({ preventScroll: true });
    }
    this.#changed();
  }

  #failed(error) {
    byId("switch-note").textContent = `Not paused: ${error.message} Try again, or send each process SIGUSR1, which pauses it without the database.`;
  }
}
