// One creative as a viewer would see it, what stands behind it, and the verdict. What an advertiser wrote is text, and no link.
import { api } from "./api.js";
import { ask } from "./ask.js";
import { el } from "../shared/dom.js";
import { count, named, since, span, when } from "./words.js";

/** Who was about to press a button when what it stands for changed must not have pressed it for the new one. */
const STARTLED_MS = 1_500;
const STATES = { waiting: "Waiting", approved: "Approved", rejected: "Rejected" };

/** From this origin, whatever address the service is known by. */
const address = (url) => `/media/${url.split("/").pop()}`;

function medium({ kind, media_url: url, width, height, headline }) {
  const size = { src: address(url), width, height };
  if (kind === "video") return el("video", { ...size, controls: true, muted: true, loop: true, playsinline: true, preload: "metadata", "aria-label": `The video of “${headline}”` });
  return el("img", { ...size, alt: `The picture of “${headline}”` });
}

const fact = (name, value) => el("div", {}, el("dt", {}, name), el("dd", {}, value));

function facts(item) {
  return el(
    "dl",
    { class: "facts" },
    fact("Leads to", el("code", {}, item.landing_url)),
    fact("Advertiser", `${item.advertiser.name} (${item.advertiser.id})`),
    fact("Creative", `${item.id}, revision ${item.revision}${item.status === "paused" ? ", paused by its advertiser" : ""}`),
    fact("Shows", `${item.kind === "video" ? "A video" : "A picture"} of ${count(item.width)} × ${count(item.height)}`),
  );
}

function earlier({ verdict, revision }) {
  if (!verdict || verdict.revision === revision) return null;
  const why = verdict.reason ? `: ${verdict.reason}` : "";
  return el("p", { class: "earlier" }, `Revision ${verdict.revision} was ${verdict.verdict} ${when(verdict.at)}${why}`);
}

/** Its element stays in its place, whatever becomes of the creative. */
export class ReviewCard {
  /** How often it was judged here: what was asked for before the last time is old. */
  turns = 0;
  #item = null;
  #judged;
  #pill = el("span", { class: "pill" });
  #fault = el("p", { class: "fault", role: "alert" });

  /** `judged(card, words)` is told of each verdict. */
  constructor(item, judged) {
    this.#judged = judged;
    this.element = el("li", { class: "card review", tabindex: "-1" });
    this.show(item);
  }

  get waits() {
    return this.#item.state === "waiting";
  }

  show(item) {
    const { id, revision, state } = item;
    const before = this.#item;
    this.#item = item;
    this.#label();
    if (before?.revision === revision && before.state === state && before.advertiser.name === item.advertiser.name && before.status === item.status) return;
    const held = this.element.contains(document.activeElement);
    this.element.className = `card review is-${state}`;
    this.element.setAttribute("aria-label", `${item.headline}, of ${item.advertiser.name}`);
    this.element.replaceChildren(...(state === "waiting" ? this.#whole() : this.#line()));
    if (before && before.revision !== revision) this.#startle(revision);
    if (held) this.element.focus({ preventScroll: true });
    this.element.id = `creative-${id}`;
  }

  end() {
    if (this.element.contains(document.activeElement)) document.getElementById("stage").focus({ preventScroll: true });
    this.element.remove();
  }

  #label() {
    const { state, since: moment } = this.#item;
    const words = state === "waiting" ? `Waiting for ${span(since(moment))}` : STATES[state];
    this.#pill.className = `pill is-${state}`;
    if (this.#pill.textContent !== words) this.#pill.textContent = words;
  }

  #whole() {
    const item = this.#item;
    return [
      el("div", { class: "review-media" }, medium(item)),
      el(
        "div",
        { class: "review-text" },
        el("div", { class: "review-head" }, el("h3", {}, item.headline), this.#pill),
        item.body ? el("p", { class: "review-body" }, item.body) : null,
        el("p", {}, el("span", { class: "action" }, named(item.call_to_action))),
        facts(item),
        earlier(item),
        this.#fault,
        el("div", { class: "verdicts" }, this.#approve("Approve", "primary"), this.#reject("Reject…")),
      ),
    ];
  }

  #line() {
    const { state, headline, advertiser, verdict } = this.#item;
    const act = state === "approved" ? this.#reject("Reject after all…") : this.#approve("Approve after all", "button");
    const why = state === "rejected" && verdict?.reason ? el("p", { class: "note" }, verdict.reason) : null;
    return [el("div", { class: "review-head" }, el("h3", {}, headline), this.#pill), el("p", { class: "note" }, advertiser.name), why, this.#fault, el("div", { class: "verdicts" }, act)];
  }

  #startle(revision) {
    this.#fault.textContent = `Its advertiser has changed it: this is revision ${revision}.`;
    const buttons = [...this.element.querySelectorAll(".verdicts button")];
    buttons.forEach((button) => (button.disabled = true));
    setTimeout(() => buttons.forEach((button) => (button.disabled = false)), STARTLED_MS);
  }

  #approve(words, looks) {
    const button = el("button", { type: "button", class: looks, click: () => this.#press(button) }, words);
    return button;
  }

  async #press(button) {
    button.disabled = true;
    try {
      await this.#judge("approve", {});
    } catch (error) {
      this.#fault.textContent = error.message;
      button.disabled = false;
    }
  }

  #reject(words) {
    const { headline, advertiser, revision } = this.#item;
    const text = `Of ${advertiser.name}, revision ${revision}. Its ads are not shown until somebody approves it.`;
    const asked = { title: `Reject “${headline}”?`, text, action: "Reject", harsh: true };
    return el("button", { type: "button", class: "button is-harsh", click: () => ask(asked, (reason) => this.#judge("reject", { reason }, revision)) }, words);
  }

  /** The revision is the one that was looked at, also where another has come while the dialog stood. */
  async #judge(act, more, revision = this.#item.revision) {
    const item = await api.judge(this.#item.id, act, { revision, ...more });
    this.turns += 1;
    this.#fault.textContent = "";
    this.show(item);
    this.#judged(this, `${STATES[item.state]}: ${item.headline}.`);
  }
}
