// Puts the console together: what the service says every two seconds, and the plan or form that the address names.
import { api } from "./api.js";
import { PlanForm } from "./form.js";
import { showPlaces, showPlans } from "./places.js";
import { PlanView } from "./plan.js";
import { byId, el } from "../shared/dom.js";
import { setUpTheme } from "../shared/theme.js";
import { Switch } from "./switch.js";
import { clock } from "./words.js";

const EVERY_MS = 2_000;
const SURFACES = document.body.dataset.surfaces.split(" ");

let view = null;
let ended = null;
let plans = [];
let saidSides = "";
let heard = null;
let turn = null;

const chosen = () => Number(location.hash.match(/^#plan-(\d+)$/)?.[1] ?? 0);

const killSwitch = new Switch(() => refresh());

/** It waits for nothing else, so that ads can be paused whatever hangs. */
async function readSwitch() {
  const { turns } = killSwitch;
  killSwitch.show(await api.switch(), turns);
}

async function read() {
  const [rollout, active] = await Promise.all([api.rollout(), api.plans(true), readSwitch()]);
  const known = new Set(active.map(({ id }) => id));
  const gone = plans.some((plan) => !plan.ended && !known.has(plan.id));
  if (ended === null || gone) ended = await api.plans(false);
  plans = [...ended.filter(({ id }) => !known.has(id)), ...active];
  if (!location.hash && plans.length) {
    history.replaceState(null, "", `#plan-${(plans.find((plan) => !plan.ended) ?? plans.at(-1)).id}`);
    open();
  }
  const said = JSON.stringify([rollout, plans.map(({ look, waits_for: waits, ...plan }) => plan), location.hash]);
  if (said !== saidSides) {
    const focus = document.activeElement?.getAttribute("href");
    showPlaces(rollout, plans);
    showPlans(plans, chosen());
    if (focus) [...document.querySelectorAll(".side a")].find((link) => link.getAttribute("href") === focus)?.focus({ preventScroll: true });
    saidSides = said;
  }
  if (view === null) open();
  await view?.refresh?.();
}

/** One reading is under way at a time; who asks meanwhile gets the next one. */
function refresh() {
  turn = (turn ?? Promise.resolve()).then(read).then(connected, lost);
  return turn;
}

function connected() {
  heard = new Date();
  byId("live").className = "live is-on";
  byId("live").textContent = `Live, ${clock(heard)}`;
  byId("banner").hidden = true;
}

function lost(error) {
  if (error.status === 401) return location.reload();
  byId("live").className = "live is-off";
  byId("live").textContent = "Not connected";
  byId("banner").hidden = false;
  byId("banner").textContent = `${error.message} ${heard ? `What you see is of ${clock(heard)}.` : ""} Trying again every few seconds. To stop ads meanwhile, send each process SIGUSR1.`;
}

function emptyStage() {
  return el("section", { class: "card empty" }, el("h2", {}, "No plan yet"), el("p", {}, "A plan takes a surface, or some of its countries, from the first viewers to everybody: step by step, watching what must not get worse, and back by itself when it does."), el("p", {}, el("a", { class: "primary", href: "#new" }, "Plan a ramp")));
}

function open() {
  view?.end?.();
  const stage = byId("stage");
  if (location.hash === "#new") {
    view = new PlanForm(SURFACES, ({ id }) => (location.hash = `#plan-${id}`));
  } else if (chosen()) {
    view = new PlanView(chosen(), refresh);
  } else {
    view = { element: emptyStage() };
  }
  stage.replaceChildren(view.element);
}

async function loop() {
  while (true) {
    if (!document.hidden) await refresh();
    await new Promise((done) => setTimeout(done, EVERY_MS));
  }
}

setUpTheme();
setInterval(() => view?.tick?.(), 1_000);
addEventListener("hashchange", () => {
  open();
  refresh();
  byId("stage").focus({ preventScroll: true });
});
document.addEventListener("visibilitychange", () => document.hidden || refresh());
byId("sign-out").addEventListener("click", () => api.signOut().finally(() => location.reload()));
loop();
