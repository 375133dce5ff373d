// A new plan. It begins as a careful one that can be sent as it is.
import { Refused, api } from "./api.js";
import { el, icon } from "../shared/dom.js";
import { METRICS, isChange, title } from "./words.js";

const HOUR_S = 3_600;
const UNITS = { min: 60, h: HOUR_S, d: 24 * HOUR_S };
const STEPS = [
  [0.01, 4, "h", 0, false],
  [0.1, 4, "h", 0, false],
  [1, 1, "d", 1_000, false],
  [5, 2, "d", 5_000, true],
  [25, 3, "d", 20_000, false],
  [50, 3, "d", 50_000, true],
  [100, 7, "d", 0, true],
];
const GUARDRAILS = [
  ["session_seconds", "falls", 2, "roll_back", 1_000],
  ["statuses_viewed", "falls", 2, "roll_back", 1_000],
  ["returns_next_day", "falls", 1, "roll_back", 5_000],
  ["hide_rate", "rises", 3, "hold", 500],
  ["report_rate", "rises", 0.5, "roll_back", 500],
  ["decision_p99_ms", "rises", 50, "hold", 0],
];
const inPercent = (metric) => isChange(metric) || METRICS[metric][1] === "share";
const unit = (metric) => (inPercent(metric) ? "%" : METRICS[metric][1] === "ms" ? "ms" : "");

const harm = (metric, direction) => `must not ${direction.slice(0, -1)} ${isChange(metric) ? "by" : direction === "falls" ? "below" : "above"}`;

const number = (name, value, label, more = {}) => el("input", { type: "number", name, value: String(value), "aria-label": label, min: 0, step: "any", required: true, ...more });

const select = (name, entries, chosen, label) => el("select", { name, "aria-label": label }, ...entries.map(([value, text]) => el("option", { value, selected: value === chosen }, text)));

/** Columns have heads only where the window is wide enough for columns. */
const people = (input) => el("label", { class: "with-unit" }, input, el("span", { class: "narrow" }, "viewers"));

const remover = (row, what) => el("button", { type: "button", class: "icon-button", "aria-label": `Remove ${what}`, click: () => row().remove() }, icon("close"));

function stepRow([percent, time, timeUnit, viewers, approval]) {
  const row = el(
    "div",
    { class: "form-row step-row", role: "group", "aria-label": "Step" },
    el("label", { class: "with-unit" }, number("percent", percent, "Percent", { max: 100, min: 0.01 }), "%"),
    el("span", { class: "pair" }, number("time", time, "Minimum time"), select("unit", Object.keys(UNITS).map((name) => [name, name]), timeUnit, "Unit of time")),
    people(number("viewers", viewers, "Minimum viewers", { step: 1 })),
    el("label", { class: "tick" }, el("input", { type: "checkbox", name: "approval", checked: approval }), "needs approval"),
    remover(() => row, "step"),
    el("p", { class: "fault" }),
  );
  return row;
}

function guardrailRow([metric, direction, bound, onBreach, viewers]) {
  const unitLabel = el("span", {}, unit(metric));
  const directions = select("direction", ["falls", "rises"].map((name) => [name, harm(metric, name)]), direction, "Direction");
  const metrics = select("metric", Object.keys(METRICS).map((name) => [name, title(name)]), metric, "Metric");
  metrics.addEventListener("change", () => {
    unitLabel.textContent = unit(metrics.value);
    for (const option of directions.options) option.textContent = harm(metrics.value, option.value);
  });
  const row = el(
    "div",
    { class: "form-row guardrail-row", role: "group", "aria-label": "Guardrail" },
    metrics,
    directions,
    el("label", { class: "with-unit" }, number("bound", bound, "Bound"), unitLabel),
    select("on_breach", [["roll_back", "or roll back"], ["hold", "or hold"], ["warn", "or warn"]], onBreach, "On breach"),
    people(number("viewers", viewers, "Viewers needed", { step: 1 })),
    remover(() => row, "guardrail"),
    el("p", { class: "fault" }),
  );
  return row;
}

const value = (row, name) => row.querySelector(`[name=${name}]`).value;

const step = (row) => ({
  percent: Number(value(row, "percent")),
  min_time_s: Math.round(Number(value(row, "time")) * UNITS[value(row, "unit")]),
  min_viewers: Number(value(row, "viewers")),
  approval: row.querySelector("[name=approval]").checked,
});

const guardrail = (row) => ({
  metric: value(row, "metric"),
  direction: value(row, "direction"),
  bound: Number(value(row, "bound")) / (inPercent(value(row, "metric")) ? 100 : 1),
  on_breach: value(row, "on_breach"),
  min_viewers: Number(value(row, "viewers")),
});

/** "9-11, 14" to [9, 10, 11, 14]. */
function hours(text) {
  return text.split(",").map((part) => part.trim()).filter(Boolean).flatMap((part) => {
    const [from, to = from] = /^\d{1,2}(\s*[-–]\s*\d{1,2})?$/.test(part) ? part.split(/[-–]/).map(Number) : [];
    if (!(from <= to)) throw new Refused(0, "", [["$.hours", `${part} is no hour or range such as 9-17`]]);
    return Array.from({ length: to - from + 1 }, (_, at) => from + at);
  });
}

const field = (name, label, input, hint) => el("label", { class: "field", "data-field": name }, el("span", {}, label), input, hint && el("small", {}, hint), el("p", { class: "fault" }));

export class PlanForm {
  #steps = el("div", { class: "rows" }, ...STEPS.map(stepRow));
  #guardrails = el("div", { class: "rows" }, ...GUARDRAILS.map(guardrailRow));
  #fault = el("p", { class: "fault", role: "alert" });
  #made;

  /** `made` gets the new plan. */
  constructor(surfaces, made) {
    this.#made = made;
    const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
    this.element = el(
      "form",
      { class: "card form", submit: (event) => this.#send(event) },
      el("div", { class: "card-head" }, el("h2", {}, "Plan a ramp"), el("a", { class: "quiet", href: "#" }, "Cancel")),
      el("p", { class: "note" }, "The plan climbs these steps by itself, as soon as each has had its time and viewers and no guardrail speaks against it. A breach takes it back within a minute."),
      el("div", { class: "fields" },
        field("surface", "Surface", select("surface", surfaces.map((name) => [name, name]), surfaces[0], "Surface")),
        field("countries", "Countries", el("input", { name: "countries", placeholder: "ID, SG", autocomplete: "off", spellcheck: "false" }), "Two-letter codes. None: the whole surface."),
        field("starts_at", "Starts", el("input", { type: "datetime-local", name: "starts_at" }), "Empty: at once."),
        field("hours", "Hours to advance in", el("input", { name: "hours", placeholder: "9-17", autocomplete: "off" }), "Empty: at any hour."),
        field("time_zone", "Time zone of those hours", el("input", { name: "time_zone", value: zone, autocomplete: "off", required: true })),
      ),
      el("fieldset", {}, el("legend", {}, "Steps"), el("div", { class: "form-row step-row form-heads", "aria-hidden": "true" }, ...["percent", "at least for", "at least viewers", "", ""].map((head) => el("span", {}, head))), this.#steps, this.#adder("Add a step", this.#steps, () => stepRow([100, 1, "d", 0, false]))),
      el("fieldset", {}, el("legend", {}, "What must not get worse"), el("div", { class: "form-row guardrail-row form-heads", "aria-hidden": "true" }, ...["metric", "", "bound", "what then", "viewers needed", ""].map((head) => el("span", {}, head))), this.#guardrails, this.#adder("Add a guardrail", this.#guardrails, () => guardrailRow(["posts_made", "falls", 2, "roll_back", 1_000]))),
      field("reason", "Why, for the history", el("input", { name: "reason", maxlength: 500, required: true, placeholder: "First ads in Indonesia" })),
      this.#fault,
      el("div", { class: "row-end" }, el("a", { class: "quiet", href: "#" }, "Cancel"), el("button", { class: "primary", type: "submit" }, "Start this plan")),
    );
  }

  #adder(label, rows, make) {
    const add = () => {
      rows.append(make());
      rows.lastElementChild.querySelector("input, select").focus();
    };
    return el("button", { type: "button", class: "button", click: add }, label);
  }

  #plan() {
    const given = (name) => this.element.elements[name].value.trim();
    const plan = {
      surface: given("surface"),
      countries: given("countries").toUpperCase().split(/[\s,]+/).filter(Boolean),
      hours: hours(given("hours")),
      time_zone: given("time_zone"),
      steps: [...this.#steps.children].map(step),
      guardrails: [...this.#guardrails.children].map(guardrail),
      reason: given("reason"),
    };
    if (given("starts_at")) plan.starts_at = new Date(given("starts_at")).toISOString();
    return plan;
  }

  async #send(event) {
    event.preventDefault();
    this.element.querySelectorAll(".fault").forEach((fault) => (fault.textContent = ""));
    this.element.querySelectorAll("[aria-invalid]").forEach((input) => input.removeAttribute("aria-invalid"));
    const button = event.submitter;
    button.disabled = true;
    try {
      this.#made(await api.create(this.#plan()));
    } catch (error) {
      if (!error.fields?.length) this.#fault.textContent = error.message;
      (error.fields ?? []).forEach(([name, reason]) => this.#blame(name, reason));
      this.element.querySelector("[aria-invalid]")?.focus();
    } finally {
      button.disabled = false;
    }
  }

  /** Says what is wrong beside what it is about: `$.steps[2].percent`. */
  #blame(name, reason) {
    const [, list, at, part] = name.match(/^\$\.(\w+)(?:\[(\d+)\])?(?:\.(\w+))?/) ?? [];
    const rows = { steps: this.#steps, guardrails: this.#guardrails }[list];
    const place = rows && at !== undefined ? rows.children[Number(at)] : this.element.querySelector(`[data-field="${CSS.escape(list ?? "")}"]`);
    if (!place) {
      this.#fault.textContent += `${this.#fault.textContent ? " " : ""}${name.replace("$.", "")} ${reason}.`;
      return;
    }
    place.querySelector(".fault").textContent = reason;
    const inputs = { min_time_s: "time", min_viewers: "viewers" };
    const input = place.querySelector(`[name="${inputs[part] ?? part ?? list}"]`) ?? place.querySelector("input, select");
    input.setAttribute("aria-invalid", "true");
  }
}
