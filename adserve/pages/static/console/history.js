// Who or what moved a plan, when, why, and what was seen then.
import { el } from "../shared/dom.js";
import { FINDINGS, STATES, capital, count, figure, named, percent, rule, title, when } from "./words.js";

const DONE = { plan: "planned", look: "moved by itself", pause: "paused", resume: "resumed", advance: "advanced", approve: "approved", "roll-back": "rolled back", abort: "aborted" };

function figures(look) {
  const rows = look.verdicts.map((verdict) =>
    el(
      "tr",
      {},
      el("th", { scope: "row" }, title(verdict.metric)),
      el("td", { class: "number" }, figure(verdict.metric, verdict.estimate)),
      el("td", { class: "number" }, verdict.low === null ? "–" : `${figure(verdict.metric, verdict.low)} to ${figure(verdict.metric, verdict.high)}`),
      el("td", {}, rule(verdict)),
      el("td", {}, el("span", { class: `pill is-${verdict.finding}` }, FINDINGS[verdict.finding])),
    ),
  );
  const arms = `${count(look.exposed)} viewers saw ads, ${count(look.control)} were compared with them. ${look.mismatch?.words ?? ""}`;
  const head = el("tr", {}, ...["Guardrail", "Estimate", "Band", "Bound", "Finding"].map((name) => el("th", { scope: "col" }, name)));
  return el("details", { class: "seen" }, el("summary", {}, "The figures then"), el("p", { class: "note" }, arms), el("div", { class: "scroller" }, el("table", {}, el("thead", {}, head), el("tbody", {}, ...rows))));
}

function entry(move) {
  return el(
    "li",
    { class: "move" },
    el("time", { datetime: move.at, title: move.at }, when(move.at)),
    el(
      "div",
      { class: "move-what" },
      el("p", {}, el("strong", {}, move.by ?? "adserve"), ` ${DONE[move.act] ?? named(move.act)}`, el("span", { class: `pill is-${move.status}` }, STATES[move.status])),
      el("p", { class: "move-why" }, capital(move.reason)),
      move.seen && figures(move.seen),
    ),
    el("span", { class: "number" }, percent(move.percent)),
  );
}

export function history(moves) {
  return el("ol", { class: "moves" }, ...[...moves].reverse().map(entry));
}
