// Draws one status or ad as it fills the screen.
import { el, icon } from "../shared/dom.js";
import { ago, hueOf, initials, words } from "./format.js";

const TONES = new Set(["ember", "lagoon", "orchid", "meadow", "night", "peach"]);
const LONG_TEXT = 60;

/** Answers the figure and a promise that settles when its picture can be seen; it rejects when there is none. */
export function drawFrame(item) {
  const frame = el("figure", { class: "frame" });
  if (item.kind === "text") {
    const tone = TONES.has(item.tone) ? item.tone : "night";
    frame.classList.add(`tone-${tone}`);
    const long = item.caption.length > LONG_TEXT;
    frame.append(el("p", { class: long ? "words is-long" : "words", dir: "auto" }, item.caption));
    return { frame, ready: Promise.resolve() };
  }
  const picture = el("img", { src: item.media, alt: "", draggable: "false" });
  frame.append(picture);
  if (item.caption) frame.append(el("figcaption", { dir: "auto" }, item.caption));
  return { frame, ready: picture.decode() };
}

export function preload(item) {
  if (item?.media) new Image().src = item.media;
}

export function drawWho(item) {
  const meta =
    item.kind === "ad"
      ? el("span", { class: "sponsored" }, "Sponsored")
      : el("p", { class: "who-meta" }, ago(item.ageMin));
  return [
    el("span", { class: "avatar", "aria-hidden": "true", "--hue": item.hue ?? hueOf(item.name) }, initials(item.name)),
    el("div", { class: "who-text" }, el("p", { class: "who-name" }, item.name), meta),
  ];
}

export function drawOffer(ad, onClick) {
  return el(
    "div",
    { class: "offer" },
    el("h3", { dir: "auto" }, ad.headline),
    ad.body ? el("p", { dir: "auto" }, ad.body) : null,
    el(
      "a",
      { href: ad.paths.click, target: "_blank", rel: "noopener noreferrer", click: onClick },
      words(ad.action), icon("out"),
    ),
  );
}

export function describe(item, position, length) {
  if (item.kind === "ad") return `Sponsored: ${item.name}. ${item.headline}. ${item.body}`;
  const what = item.kind === "image" ? "Photo" : "Text";
  return `${item.name}, ${position} of ${length}. ${what}${item.caption ? `: ${item.caption}` : ""}`;
}
