// What waits for a person, those that have waited longest first. What was judged here stays in view, so that a slip can be put right.
import { api } from "./api.js";
import { live } from "./live.js";
import { ReviewCard } from "./review-card.js";
import { byId } from "../shared/dom.js";
import { setUpTheme } from "../shared/theme.js";
import { several, since, span } from "./words.js";

const EVERY_MS = 3_000;

/** By the creative's id, in the order in which they stand. */
const cards = new Map();

function judged(card, words) {
  byId("said").textContent = words;
  const rest = [...cards.values()];
  const next = [...rest.slice(rest.indexOf(card) + 1), ...rest].find((other) => other.waits);
  const go = () => (next?.element ?? byId("stage")).focus();
  const dialog = byId("ask");
  if (dialog.open) dialog.addEventListener("close", go, { once: true }); // until then nothing outside of it takes the focus
  else go();
  refresh();
}

async function read() {
  const known = new Map([...cards].map(([id, { turns }]) => [id, turns]));
  const { items, next } = await api.reviews();
  const ids = new Set(items.map(({ id }) => id));
  for (const [id, card] of cards) {
    if (!card.waits || ids.has(id) || card.turns !== known.get(id)) continue;
    card.end();
    cards.delete(id);
  }
  for (const item of items) {
    const card = cards.get(item.id);
    if (!card) add(item);
    else if (card.turns === known.get(item.id)) card.show(item);
  }
  tell(items, next);
}

function add(item) {
  const card = new ReviewCard(item, judged);
  cards.set(item.id, card);
  byId("queue").append(card.element);
}

function tell(items, next) {
  const many = next ? `More than ${several(items.length, "creative")}` : several(items.length, "creative");
  const words = items.length ? `${many} to look at, the oldest waiting for ${span(since(items[0].since))}` : "Nothing waits for a review";
  if (byId("waiting").textContent !== words) byId("waiting").textContent = words;
  document.title = `${items.length ? `(${items.length}${next ? "+" : ""}) ` : ""}Reviews · adserve`;
}

setUpTheme();
const refresh = live(read, EVERY_MS);
