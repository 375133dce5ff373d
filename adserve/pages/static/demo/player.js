// The Status player: what is on the screen, for how long, and what taps, holds and keys do to it.
import { el, icon } from "../shared/dom.js";
import { runAround } from "./feed.js";
import { describe, drawFrame, drawOffer, drawWho, preload } from "./frame.js";

const SHOWN_MS = { image: 4_500, text: 4_500, ad: 7_000 };
const VIEW_AFTER_MS = 1_000;
const HOLD_AFTER_MS = 220;
const TICK_MS = 100;

/**
 * Plays decoded feeds. `hooks`: shown(item), impression(ad), viewed(ad, ms), clicked(ad), hide(ad), report(ad),
 * ended(), again(), another(), panels().
 */
export class Player {
  #hooks;
  #items = [];
  #at = -1;
  #seen = new Set();
  #frame = null;
  #clock = null;
  #pausedBy = new Set();
  #parts;

  constructor(screen, hooks) {
    this.#hooks = hooks;
    this.#parts = this.#build(screen);
    setInterval(() => this.#tick(), TICK_MS);
    document.addEventListener("visibilitychange", () => this.hold("hidden", document.hidden));
  }

  load(items) {
    this.#items = items;
    this.#seen.clear();
    this.#at = -1;
    this.hold("button", false);
    this.next();
  }

  wait(text) {
    this.#clear();
    this.#items = [];
    this.#parts.body.replaceChildren(el("p", { class: "waiting" }, text));
  }

  next() {
    if (this.#at + 1 < this.#items.length) this.#show(this.#at + 1);
    else if (this.#items.length) this.#end();
  }

  previous() {
    this.#show(Math.max(0, Math.min(this.#at, this.#items.length) - 1));
  }

  get current() {
    return this.#items[this.#at] ?? null;
  }

  /** Takes out and answers what is still to come and `unwanted` says yes to. */
  drop(unwanted) {
    const gone = this.#items.filter((item, at) => at > this.#at && unwanted(item));
    this.#items = this.#items.filter((item) => !gone.includes(item));
    return gone;
  }

  /** The ads that nobody has seen, also those that were passed before their picture came. */
  get unseenAds() {
    return this.#items.filter((item) => item.kind === "ad" && !this.#seen.has(item));
  }

  /** How many statuses lie before the next ad; null when none comes. */
  get statusesToAd() {
    const next = this.#items.slice(this.#at + 1).findIndex(({ kind }) => kind === "ad");
    return next < 0 ? null : next + 1;
  }

  /** Stops time while `reason` holds. */
  hold(reason, on) {
    if (on) this.#pausedBy.add(reason);
    else this.#pausedBy.delete(reason);
    const paused = this.#pausedBy.size > 0;
    if (paused) this.#clock?.pause();
    else this.#clock?.play();
    const pressed = this.#pausedBy.has("button");
    this.#parts.pause.replaceChildren(icon(pressed ? "play" : "pause"));
    this.#parts.pause.setAttribute("aria-label", pressed ? "Play" : "Pause");
  }

  #build(screen) {
    const parts = {
      screen,
      body: el("div", { class: "body" }),
      segments: el("div", { class: "segments", "aria-hidden": "true" }),
      who: el("div", { class: "who" }),
      pause: el("button", { class: "glass", type: "button", click: () => this.hold("button", !this.#pausedBy.has("button")) }),
      more: el("button", { class: "glass", type: "button", "aria-label": "About this ad", "aria-haspopup": "menu", click: () => this.#toggleMenu() }, icon("more")),
      panels: el("button", { class: "glass panel-button", type: "button", "aria-label": "Behind this feed", click: () => this.#hooks.panels() }, icon("panel")),
      said: el("p", { class: "visually-hidden", "aria-live": "polite" }),
      back: el("button", { class: "tap tap-back", type: "button", "aria-label": "Previous status" }),
      forward: el("button", { class: "tap tap-next", type: "button", "aria-label": "Next status" }),
      menu: null,
    };
    parts.chrome = el("div", { class: "chrome" }, parts.segments, parts.who);
    screen.replaceChildren(parts.body, parts.back, parts.forward, parts.chrome, parts.said);
    this.#listen(parts);
    return parts;
  }

  #listen(parts) {
    for (const [button, go] of [[parts.back, () => this.previous()], [parts.forward, () => this.next()]]) {
      let timer = 0;
      let held = false;
      const release = () => {
        clearTimeout(timer);
        parts.screen.classList.remove("is-held");
        this.hold("hold", false);
      };
      button.addEventListener("pointerdown", () => {
        held = false;
        timer = setTimeout(() => {
          held = true;
          parts.screen.classList.add("is-held");
          this.hold("hold", true);
        }, HOLD_AFTER_MS);
      });
      for (const name of ["pointerup", "pointercancel", "pointerleave"]) button.addEventListener(name, release);
      button.addEventListener("contextmenu", (event) => event.preventDefault());
      button.addEventListener("click", () => (held ? (held = false) : this.#menuClosed() && go()));
    }
    document.addEventListener("keydown", (event) => this.#key(event));
  }

  #key(event) {
    if (event.target.matches("input, select, [role=listbox]") || event.ctrlKey || event.metaKey || event.altKey) return;
    const actions = {
      ArrowRight: () => this.next(),
      ArrowLeft: () => this.previous(),
      Escape: () => this.#closeMenu(),
      h: () => this.current?.kind === "ad" && this.#hooks.hide(this.current),
    };
    if (event.key === " " && !event.target.matches("button, a")) actions[" "] = () => this.#parts.pause.click();
    if (!actions[event.key]) return;
    if (event.key !== "Escape") event.preventDefault();
    actions[event.key]();
  }

  #clear() {
    this.#clock?.cancel();
    this.#clock = null;
    this.#closeMenu();
    this.#parts.segments.replaceChildren();
    this.#parts.who.replaceChildren(this.#spacer(), this.#parts.panels);
    this.#frame = null;
  }

  #spacer = () => el("div", { class: "who-text" });

  async #show(at) {
    const item = this.#items[at];
    if (!item) return;
    this.#clear();
    this.#at = at;
    const { frame, ready } = drawFrame(item);
    this.#frame = frame;
    const offer = item.kind === "ad" ? drawOffer(item, () => this.#hooks.clicked(item)) : null;
    this.#parts.body.replaceChildren(frame, ...(offer ? [offer] : []));
    const [first, last] = runAround(this.#items, at);
    const bars = Array.from({ length: last - first + 1 }, (_, step) =>
      el("span", { class: first + step < at ? "segment is-done" : "segment" }, el("i")));
    this.#parts.segments.replaceChildren(...bars);
    this.#parts.who.replaceChildren(...drawWho(item), this.#parts.pause, ...(offer ? [this.#parts.more] : []), this.#parts.panels);
    this.#parts.said.textContent = describe(item, at - first + 1, bars.length);
    this.#hooks.shown(item);
    const seen = await ready.then(() => true, () => false);
    if (this.#frame !== frame) return;
    if (!seen && item.kind === "ad") return this.next();
    this.#start(bars[at - first].firstChild, item);
    preload(this.#items[at + 1]);
    preload(this.#items[at + 2]);
  }

  #start(bar, item) {
    this.#clock = bar.animate([{ transform: "scaleX(0)" }, { transform: "scaleX(1)" }], { duration: SHOWN_MS[item.kind], fill: "forwards" });
    this.#clock.onfinish = () => this.next();
    if (this.#pausedBy.size) this.#clock.pause();
    if (item.kind !== "ad") return;
    this.#seen.add(item);
    this.#hooks.impression(item);
  }

  #tick() {
    const shownMs = this.#clock?.currentTime ?? 0;
    if (this.current?.kind === "ad" && shownMs >= VIEW_AFTER_MS) this.#hooks.viewed(this.current, Math.round(shownMs));
  }

  #end() {
    this.#clear();
    this.#at = this.#items.length;
    this.#parts.body.replaceChildren(
      el(
        "div",
        { class: "end" },
        el("span", { class: "end-mark" }, icon("done")),
        el("h3", {}, "That was everyone"),
        el("p", {}, "No more statuses for this viewer."),
        el(
          "div",
          { class: "end-actions" },
          el("button", { type: "button", click: () => this.#hooks.another() }, "Next viewer"),
          el("button", { type: "button", click: () => this.#hooks.again() }, "Load a fresh feed"),
        ),
      ),
    );
    this.#parts.said.textContent = "That was everyone.";
    this.#hooks.ended();
  }

  #menuClosed() {
    if (!this.#parts.menu) return true;
    this.#closeMenu();
    return false;
  }

  #closeMenu() {
    if (!this.#parts.menu) return;
    this.#parts.menu.remove();
    this.#parts.menu = null;
    this.#parts.more.setAttribute("aria-expanded", "false");
    this.hold("menu", false);
    this.#parts.more.focus({ preventScroll: true });
  }

  #toggleMenu() {
    if (!this.#menuClosed()) return;
    const ad = this.current;
    const choice = (name, text, act) =>
      el("button", { type: "button", role: "menuitem", click: () => { this.#closeMenu(); act(ad); } }, icon(name), text);
    this.#parts.menu = el(
      "div",
      { class: "menu", role: "menu", "aria-label": "About this ad" },
      choice("hide", `Hide ads from ${ad.name}`, this.#hooks.hide),
      choice("flag", "Report this ad", this.#hooks.report),
    );
    this.#parts.screen.append(this.#parts.menu);
    this.#parts.more.setAttribute("aria-expanded", "true");
    this.hold("menu", true);
    this.#parts.menu.firstChild.focus();
  }
}
