// A plan as a staircase: a step's height is its percent on a scale of decades, below it stands who was seen there.
import { el, icon } from "../shared/dom.js";
import { rise } from "./places.js";
import { count, percent, since, span } from "./words.js";

function needs(step) {
  const viewers = step.min_viewers ? `${count(step.min_viewers)} viewers` : null;
  return [step.min_time_s ? span(step.min_time_s) : null, viewers].filter(Boolean).join(" · ") || "no minimum";
}

const seen = (step) =>
  step.exposed === null
    ? [el("span", { class: "aside" }, step.state === "ahead" ? "not yet" : "not looked at")]
    : [
        el("span", { class: "stair-exposed", title: `${count(step.exposed)} viewers saw ads` }, count(step.exposed)),
        el("span", { class: "aside", title: `compared with ${count(step.control)} who did not` }, `vs ${count(step.control)}`),
      ];

const SAYS = { passed: "passed", current: "now", ahead: "ahead" };

function stair(step, number, plan) {
  const state = plan.ended && step.state === "current" ? (plan.status === "completed" ? "passed" : "stopped") : step.state;
  const approval = step.approval ? el("span", { class: "stair-approval", title: "A person has to approve this step" }, icon("done"), el("span", {}, "approval")) : null;
  return el(
    "li",
    { class: `stair is-${state}`, "--rise": String(rise(step.percent)), "aria-current": state === "current" && "step" },
    el("p", { class: "stair-percent" }, percent(step.percent)),
    el("div", { class: "stair-block" }, el("span", { class: "visually-hidden" }, `step ${number}, ${SAYS[step.state]}`), approval),
    el("p", { class: "stair-seen" }, ...seen(step)),
    el("p", { class: "stair-needs", title: "The least time and viewers before it may be left" }, needs(step)),
  );
}

export function stairs(plan) {
  const steps = plan.steps.map((step, at) => stair(step, at + 1, plan));
  return el("ol", { class: "stairs", "--steps": String(steps.length) }, ...steps);
}

/** How far the current step's least time has come, as words and as a share; null where no step is under way. */
export function progress(plan) {
  const step = plan.steps[plan.step - 1];
  if (!step || plan.ended) return null;
  const spent = since(plan.step_entered_at);
  const share = step.min_time_s ? Math.min(1, spent / step.min_time_s) : 1;
  const least = step.min_time_s ? `${span(spent)} (at least ${span(step.min_time_s)})` : span(spent);
  return { words: `Step ${plan.step} of ${plan.steps.length}, for ${least}`, share };
}
