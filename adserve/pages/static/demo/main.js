// Puts the demo together: a viewer's feed on the phone, everything behind it beside the phone.
import { api, follow } from "./api.js";
import { beacon, viewed } from "./beacons.js";
import { byId, toast } from "../shared/dom.js";
import { decodeFeed } from "./feed.js";
import { EventLog, MoneyBars } from "./ledger.js";
import { Player } from "./player.js";
import { Ramp } from "./ramp.js";
import { Rollout } from "./rollout.js";
import { Sheet } from "./shell.js";
import { setUpTheme } from "../shared/theme.js";
import { Strip } from "./strip.js";
import { Viewers } from "./viewers.js";
import { explain } from "./why.js";

let why = null;
let asked = 0;
const strip = new Strip();
const log = new EventLog();
const bars = new MoneyBars();

const player = new Player(byId("screen"), {
  shown,
  impression: (ad) => beacon(ad, "impression"),
  viewed,
  clicked: () => player.hold("button", true),
  hide,
  report,
  ended: () => strip.mark(null),
  again: load,
  another: () => viewers.step(1),
  panels: () => sheet.open(),
});
const sheet = new Sheet((open) => player.hold("sheet", open));
const viewers = new Viewers(load, (bucket) => !rollout.paused && bucket < Math.round(rollout.percent * 100));
const ramp = new Ramp((going) => rollout.hold(going));
const rollout = new Rollout(load, () => viewers.light());

/** Ads that will not be shown give their caps and budgets back. */
async function release(ads) {
  if (ads.length) await api.release(ads.map(({ ticket }) => ticket)).catch(() => {});
}

async function load() {
  const turn = ++asked;
  const unseen = player.unseenAds;
  player.wait("Loading the feed…");
  await release(unseen);
  if (turn !== asked) return;
  try {
    const answer = await api.feed(viewers.current);
    if (turn !== asked) return;
    const items = decodeFeed(answer.feed);
    why = answer.why;
    strip.load(items);
    player.load(items);
  } catch (error) {
    if (turn === asked) player.wait(`The feed did not load: ${error.message}`);
  }
}

function shown(item) {
  strip.mark(item);
  explain(why, item, player.statusesToAd, bars.campaigns);
}

function withdraw(ad) {
  const unwanted = (item) => item.kind === "ad" && item.advertiser === ad.advertiser;
  const gone = player.drop(unwanted);
  gone.forEach((item) => strip.drop(item));
  release(gone);
  player.next();
}

function hide(ad) {
  beacon(ad, "hide");
  toast(`No more ads from ${ad.name}.`);
  withdraw(ad);
}

function report(ad) {
  beacon(ad, "report");
  toast("Thank you. This ad was reported.");
  withdraw(ad);
}

async function start() {
  setUpTheme();
  player.wait("Loading the feed…");
  addEventListener("pagehide", () => release(player.unseenAds));
  await viewers.load();
  rollout.show(await api.rollout());
  follow((state) => {
    log.show(state.events);
    bars.show(state.campaigns);
    rollout.show(state.rollout);
    ramp.show(state.ramp);
  }, (on) => log.connected(on));
  await load();
}

start().catch((error) => player.wait(`The demo did not start: ${error.message}`));
