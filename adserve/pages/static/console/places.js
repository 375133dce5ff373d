// Where each country stands, and which plan holds it; and the list of plans.
import { byId, el } from "../shared/dom.js";
import { STATES, country, count, percent, places, when } from "./words.js";

/** Four decades from 0.01 to 100 %, as a ramp climbs. */
export const rise = (number) => (number <= 0 ? 0 : Math.max(0.02, (Math.log10(number) + 2) / 4));

const holder = (plans, surface, code) =>
  plans.find((plan) => !plan.ended && plan.surface === surface && (code === null ? !plan.countries.length : plan.countries.includes(code)));

function place(label, code, share, plan) {
  const name = el("th", { scope: "row" }, label, code && el("span", { class: "code" }, code));
  const meter = el("span", { class: "meter", "--rise": String(rise(share)) });
  const held = plan ? el("a", { class: `dot is-${plan.status}`, href: `#plan-${plan.id}`, title: STATES[plan.status] }, `#${plan.id}`) : null;
  return el("tr", {}, name, el("td", { class: "meter-cell" }, meter), el("td", { class: "number" }, percent(share)), el("td", { class: "held" }, held));
}

export function showPlaces({ surfaces }, plans) {
  const tables = Object.entries(surfaces).map(([surface, rollout]) => {
    const own = Object.entries(rollout.countries).sort(([, one], [, other]) => other - one);
    const rows = [
      ...own.map(([code, share]) => place(country(code), code, share, holder(plans, surface, code))),
      place(own.length ? "Everywhere else" : "Everywhere", null, rollout.percent, holder(plans, surface, null)),
    ];
    const head = el("caption", {}, surface, el("span", { class: "aside" }, rollout.holdout_percent ? `${percent(rollout.holdout_percent)} held out for good` : "no holdout"));
    return el("table", { class: "places-table" }, head, el("tbody", {}, ...rows));
  });
  byId("places").replaceChildren(...(tables.length ? tables : [el("p", { class: "note" }, "No surface shows ads yet. The first plan opens one, from its first step on.")]));
}

function line(plan, chosen) {
  const done = plan.ended ? when(plan.made_at) : `step ${plan.step} of ${plan.steps.length}`;
  const item = el(
    "a",
    { href: `#plan-${plan.id}`, class: "plan-line", "aria-current": plan.id === chosen && "page" },
    el("span", { class: `pill is-${plan.status}` }, STATES[plan.status]),
    el("span", { class: "plan-line-name" }, el("strong", {}, places(plan)), el("span", { class: "aside" }, `#${plan.id} · ${done}`)),
    el("span", { class: "number" }, percent(plan.percent)),
  );
  return el("li", {}, item);
}

const ENDED_SHOWN = 8;

export function showPlans(plans, chosen) {
  const active = plans.filter((plan) => !plan.ended);
  const ended = plans.filter((plan) => plan.ended).reverse();
  const parts = active.length
    ? [el("ul", {}, ...active.map((plan) => line(plan, chosen)))]
    : [el("p", { class: "note" }, "No plan is under way.")];
  if (ended.length) {
    const shown = ended.filter((plan, at) => at < ENDED_SHOWN || plan.id === chosen);
    parts.push(el("h3", {}, "Ended", el("span", { class: "aside" }, count(ended.length))), el("ul", {}, ...shown.map((plan) => line(plan, chosen))));
  }
  byId("plans").replaceChildren(...parts);
}
