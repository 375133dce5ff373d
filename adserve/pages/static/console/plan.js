// One plan: where it stands and why, its staircase, its guardrails, its history, and what a person can do with it.
import { api } from "./api.js";
import { ask } from "./ask.js";
import { Band } from "./bands.js";
import { byId, el } from "../shared/dom.js";
import { history } from "./history.js";
import { progress, stairs } from "./stairs.js";
import { STATES, capital, count, percent, places, when } from "./words.js";

function unlessMissing(error) {
  if (error.status !== 404) throw error;
  return null;
}

const next = (plan) => plan.steps[plan.step];

/** What each act does, in words for the dialog. */
const ACTS = {
  approve: (plan) => ({ label: `Approve ${percent(next(plan).percent)}`, text: `${capital(places(plan))} goes to ${percent(next(plan).percent)} at once.`, primary: true }),
  resume: () => ({ label: "Resume plan", text: "The plan goes on. The step that it is in begins anew, with its time and with what it has seen.", primary: true }),
  advance: (plan) => ({ label: "Advance now", text: next(plan) ? `The plan takes its next step, ${percent(next(plan).percent)}, without waiting for time, viewers or hours${next(plan).approval ? "; that step still needs approval" : ""}.` : "This was the last step: the plan is completed." }),
  pause: (plan) => ({ label: "Pause plan", text: `The percent stays at ${percent(plan.percent)} until somebody resumes the plan. Ads go on being shown; the switch above stops those.` }),
  "roll-back": (plan) => ({ label: "Roll back", text: `${capital(places(plan))} returns to ${percent(plan.good_percent)} at once, to exactly the viewers who saw ads there, and the plan ends.`, harsh: true }),
  abort: (plan) => ({ label: "Abort", text: `The plan ends. ${capital(places(plan))} stays at ${percent(plan.percent)}.`, harsh: true }),
};
const ORDER = Object.keys(ACTS);

/** Replaces what a part shows only when it has changed, so that focus and open details stay where they are. */
class Part {
  #said = null;

  constructor(element) {
    this.element = element;
  }

  show(state, draw) {
    const said = JSON.stringify(state);
    if (said === this.#said) return;
    this.#said = said;
    this.element.replaceChildren(...draw().filter(Boolean));
  }
}

const card = (name, heading, aside = null) => {
  const body = el("div");
  const section = el("section", { class: `card ${name}`, "aria-label": heading }, el("div", { class: "card-head" }, el("h3", {}, heading), aside), body);
  return [section, new Part(body)];
};

function mismatch(look) {
  if (!look) return [el("p", { class: "note" }, "The two arms are counted from the first step on.")];
  const { exposed, control, mismatch: judged } = look;
  const share = exposed + control ? exposed / (exposed + control) : 0;
  return [
    el("div", { class: "arms", "--share": String(share) }, el("span", { class: "arms-exposed" }), el("span", { class: "arms-control" })),
    el("dl", { class: "arms-counts" },
      el("div", {}, el("dt", {}, "saw ads"), el("dd", {}, count(exposed))),
      el("div", {}, el("dt", {}, "compared"), el("dd", {}, count(control))),
      el("div", {}, el("dt", {}, "p-value"), el("dd", {}, judged ? judged.p_value.toPrecision(2) : "–")),
    ),
    el("p", { class: "band-words" }, judged ? `${capital(judged.words)}.` : "Not judged at this look."),
  ];
}

export class PlanView {
  #id;
  #changed;
  #plan = null;
  #looked = null;
  #moved = null;
  #bands = [];
  #head = new Part(el("section", { class: "card plan-head" }));
  #stairs = card("stairs-card", "Staircase", el("p", { class: "aside" }, "viewers seen at each step, exposed vs control"));
  #ratio = el("span", { class: "pill" }, "No look yet");
  #arms = card("band arms-card", "Sample ratio", this.#ratio);
  #history = card("history", "History");
  #grid = el("div", { class: "bands" });
  #redraw = () => this.#bands.forEach((band) => band.draw());

  /** `changed` runs after each act. */
  constructor(id, changed) {
    this.#id = id;
    this.#changed = changed;
    this.element = el("div", { class: "plan" }, el("p", { class: "note" }, "Loading the plan…"));
    document.addEventListener("colours", this.#redraw);
  }

  end() {
    document.removeEventListener("colours", this.#redraw);
    this.#bands.forEach((band) => band.end());
  }

  async refresh() {
    const plan = await api.plan(this.#id).catch(unlessMissing);
    if (!plan) return this.element.replaceChildren(el("p", { class: "note" }, `There is no plan #${this.#id}.`));
    const lookAt = plan.look?.at ?? null;
    const [looks, moves] = await Promise.all([
      lookAt !== this.#looked || !this.#plan ? api.looks(this.#id).then(({ items }) => items) : null,
      plan.status + plan.step + plan.reason !== this.#moved || !this.#plan ? api.history(this.#id) : null,
    ]);
    if (!this.#plan) this.#build(plan);
    this.#plan = plan;
    this.#show(plan);
    if (looks) this.#showLooks(plan, looks);
    if (moves) this.#history[1].show(moves, () => [history(moves)]);
    this.#looked = lookAt;
    this.#moved = plan.status + plan.step + plan.reason;
  }

  #build(plan) {
    this.#bands = plan.guardrails.map((guardrail) => new Band(guardrail, plan));
    this.#grid.replaceChildren(this.#arms[0], ...this.#bands.map(({ element }) => element));
    this.element.replaceChildren(this.#head.element, this.#stairs[0], this.#grid, this.#history[0]);
  }

  #show(plan) {
    this.#head.show(plan, () => this.#headOf(plan));
    this.#stairs[1].show([plan.steps, plan.status, plan.good_percent], () => [stairs(plan)]);
    this.tick();
  }

  /** What time alone changes. */
  tick() {
    const bar = byId("plan-progress");
    const now = this.#plan && progress(this.#plan);
    if (!bar || !now) return;
    bar.style.setProperty("--share", String(now.share));
    byId("plan-progress-words").textContent = now.words;
  }

  #headOf(plan) {
    const acts = ORDER.filter((act) => plan.acts.includes(act)).map((act) => this.#button(act, plan));
    const hours = plan.hours.length ? `advances by itself at ${plan.hours.map((hour) => String(hour).padStart(2, "0")).join(", ")} h, ${plan.time_zone}` : null;
    const facts = [`#${plan.id}`, plan.countries.length ? plan.surface : null, `by ${plan.made_by}, ${when(plan.made_at)}`, hours].filter(Boolean).join(" · ");
    const waits = plan.waits_for.length && !plan.ended ? el("p", { class: "waits" }, el("span", { class: "aside" }, "Waits for"), ...plan.waits_for.map((reason) => el("span", { class: "chip" }, reason))) : null;
    return [
      el("div", { class: "plan-title" }, el("div", {}, el("h2", {}, capital(places(plan))), el("p", { class: "aside" }, facts)), el("span", { class: `pill is-large is-${plan.status}` }, STATES[plan.status])),
      el("div", { class: "plan-now" },
        el("p", { class: "plan-percent" }, el("strong", {}, percent(plan.percent).replace(" %", "")), el("span", {}, plan.ended ? "% when it ended" : "% of viewers may see ads")),
        el("p", { class: "plan-reason" }, `${capital(plan.reason)}.`.replace(/\.\.$/, ".")),
      ),
      progress(plan) && el("div", { class: "progress" }, el("span", { class: "progress-bar", id: "plan-progress" }), el("p", { class: "aside", id: "plan-progress-words" })),
      waits,
      acts.length ? el("div", { class: "acts" }, ...acts) : null,
    ];
  }

  #button(act, plan) {
    const { label, text, primary, harsh } = ACTS[act](plan);
    const go = async (reason) => {
      await api.act(plan.id, act, { reason, step: plan.step });
      await this.#changed();
    };
    const press = () => ask({ title: `${label}: ${places(plan)}`, text, action: label, harsh }, go);
    return el("button", { type: "button", class: primary ? "primary" : harsh ? "button is-harsh" : "button", click: press }, label);
  }

  #showLooks(plan, looks) {
    const newest = plan.look ?? looks.at(-1) ?? null;
    const found = newest?.mismatch?.found;
    this.#arms[0].classList.toggle("is-breached", Boolean(found));
    this.#ratio.className = `pill ${found ? "is-breached" : newest?.mismatch ? "is-fine" : ""}`;
    this.#ratio.textContent = found ? "Mismatch" : newest?.mismatch ? "As drawn" : "No look yet";
    this.#arms[1].show([newest?.exposed, newest?.control, newest?.mismatch], () => mismatch(newest));
    const of = ({ metric, on_breach: kind }) => newest?.verdicts.find((verdict) => verdict.metric === metric && verdict.on_breach === kind);
    this.#bands.forEach((band, at) => band.show(plan, looks, of(plan.guardrails[at])));
  }
}
