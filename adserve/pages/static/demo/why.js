// Why this ad is here, or why none is.
import { api } from "./api.js";
import { byId, el } from "../shared/dom.js";
import { count, money, percent, span, words } from "./format.js";

const REASONS = {
  rollout_paused: "Ads are stopped for everyone.",
  not_in_rollout: "This viewer is not in the rollout yet.",
  holdout: "This viewer is in the holdout, which never sees ads.",
  opted_out: "This viewer opted out of ads.",
  feed_too_short: "This feed is too short for ads.",
  no_eligible_ad: "No campaign wants this viewer.",
  frequency_capped: "Every campaign that wants this viewer has reached its cap.",
  budget_spent: "Every campaign that wants this viewer has spent its budget.",
  paced_out: "Campaigns are saving their budget for later today.",
  below_floor: "No bid reaches the floor price.",
};
const LOSSES = {
  outbid: "outbid", frequency_capped: "at its cap", hidden_by_viewer: "hidden", separation: "too close", minimum_time: "too soon",
  no_budget: "no budget", paced_out: "saving budget", below_floor: "below the floor", not_reached: "not reached",
  counters_away: "caps unknown",
};
const STEPS = ["eligible", "targeted", "above_floor", "in_budget", "under_cap", "placed"];
const SCOPES = { a: "ad", c: "campaign", v: "brand", "*": "all ads" };
const CONSIDERED_SHOWN = 5;
const PIPS_MAX = 8;

function fact(name, value, unit) {
  return el("div", {}, el("dt", {}, name), el("dd", {}, value, el("small", {}, unit)));
}

function ruler({ bucket, admitted_below: limit }) {
  return [
    el("div", { class: "ruler", "--fill": `${limit / 100}%`, "aria-hidden": "true" }, el("i", { "--at": `${bucket / 100}%` })),
    el("p", { class: "aside" }, limit ? `Rollout bucket ${count(bucket)}; ads below ${count(limit)}` : `Rollout bucket ${count(bucket)}; ads for nobody`),
  ];
}

function cap({ key, count: most, left, window_s: window }) {
  const pips = Array.from({ length: Math.min(most, PIPS_MAX) }, (_, at) => el("i", { class: at < most - left ? "is-used" : null }));
  const text = `${left} of ${most} left per ${span(window)} · ${SCOPES[key[0]] ?? key}`;
  return el("li", { class: left ? null : "is-full" }, el("span", { class: "pips", "aria-hidden": "true" }, ...pips), text);
}

function verdict({ lost, price_micros: price, bid, position }) {
  return lost ? LOSSES[lost.reason] ?? words(lost.reason) : `${money(price, bid.currency)}, after ${position}`;
}

/** How many ads got how far. */
function funnel(steps) {
  const step = (name) => el("div", { "--share": steps[name] / Math.max(steps.eligible, 1) }, el("dd", {}, count(steps[name])), el("dt", {}, words(name)));
  return el("dl", { class: "funnel", "aria-label": "How many ads got how far" }, ...STEPS.map(step));
}

function considered(ads, leftOff, shown, campaigns) {
  if (!ads.length) return [];
  const best = Math.max(...ads.map(({ value_micros: value }) => value), 1);
  const row = (ad) =>
    el(
      "li",
      { class: ad.lost ? null : "is-won", "aria-current": ad === shown },
      el("span", { class: "name" }, nameOf(ad, campaigns)),
      el("span", { class: "meter", "--fill": `${(ad.value_micros / best) * 100}%` }),
      el("span", { class: "verdict" }, verdict(ad)),
    );
  const ranked = ads.toSorted((one, other) => Boolean(one.lost) - Boolean(other.lost) || other.value_micros - one.value_micros);
  const rest = ranked.slice(CONSIDERED_SHOWN).map(row);
  const more = rest.length + leftOff;
  const list = (label, rows) => el("ol", { class: "considered", "aria-label": label }, ...rows);
  return [
    list("Ads considered, best first", ranked.slice(0, CONSIDERED_SHOWN).map(row)),
    more ? el("details", { class: "others" }, el("summary", {}, `${count(more)} more`), list("Other ads considered", rest)) : null,
  ];
}

/** A decision is recorded within a second or two; whoever presses makes it again from what was recorded. */
function again(decision) {
  const said = el("output", { class: "aside" });
  const ask = async () => {
    said.textContent = "…";
    const { same, differences } = await api.decision(decision).catch((error) => ({ differences: [error.message] }));
    said.textContent = same ? "Made again: the same result." : differences.join("; ");
  };
  return el("p", { class: "again" }, el("button", { type: "button", class: "plain", click: ask }, "Make it again"), said, el("code", { title: "The decision's id" }, decision));
}

const nameOf = ({ campaign }, campaigns) => campaigns.get(campaign)?.name ?? `Campaign ${campaign}`;

function aboutAd(why, item, ad, campaigns) {
  const { billable, model } = why.placed.find(({ ad: id }) => id === ad.ad);
  const { bid } = ad;
  byId("why-aside").textContent = `scored by ${model}`;
  return [
    el("p", { class: "why-name" }, item.name, el("span", {}, ` · ${nameOf(ad, campaigns)}`)),
    el(
      "dl",
      { class: "facts" },
      fact("Click chance", percent(ad.click_rate), "predicted"),
      fact("Bid", money(bid.micros, bid.currency), bid.model === "cpm" ? "per 1,000" : "per click"),
      fact("Pays", money(ad.price_micros, bid.currency), `per ${billable}`),
    ),
    ...ruler(why.rollout),
    el("ul", { class: "caps", "aria-label": "Caps" }, ...ad.caps.map(cap)),
  ];
}

function aboutFeed(why, statusesToAd) {
  const none = why.no_fill && (REASONS[why.no_fill] ?? words(why.no_fill));
  const coming = statusesToAd ? `Next ad in ${statusesToAd} ${statusesToAd === 1 ? "status" : "statuses"}.` : "No more ads in this feed.";
  return [el("p", { class: "why-name" }, none || coming), ...(why.rollout ? ruler(why.rollout) : [])];
}

/** `why` is the decision behind the feed, `campaigns` names by id; an ad on the screen is explained itself. */
export function explain(why, item, statusesToAd, campaigns) {
  const ads = why?.ads ?? [];
  const ad = item.kind === "ad" ? ads.find((one) => one.ad === item.id && !one.lost) : null;
  byId("why-title").textContent = why?.no_fill ? "Why no ads" : "Why this ad";
  byId("why-aside").textContent = "";
  if (!why) return byId("why").replaceChildren(el("p", { class: "empty" }, "Nothing is known about this feed."));
  const about = ad ? aboutAd(why, item, ad, campaigns) : aboutFeed(why, statusesToAd);
  const behind = why.funnel ? [funnel(why.funnel), ...considered(ads, why.ads_left_off, ad, campaigns), again(why.decision)] : [];
  return byId("why").replaceChildren(...about, ...behind.filter(Boolean));
}
