// Puts the console together: what the service says every two seconds, and the plan or form that the address names.
import { api } from "./api.js";
import { PlanForm } from "./form.js";
import { live } from "./live.js";
import { showPlaces, showPlans } from "./places.js";
import { PlanView } from "./plan.js";
import { byId, el } from "../shared/dom.js";
import { setUpTheme } from "../shared/theme.js";
import { Switch } from "./switch.js";

const EVERY_MS = 2_000;
const SURFACES = document.body.dataset.surfaces.split(" ");

let view = null;
let ended = null;
let plans = [];
let saidSides = "";

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

setUpTheme();
setInterval(() => view?.tick?.(), 1_000);
addEventListener("hashchange", () => {
  open();
  refresh();
  byId("stage").focus({ preventScroll: true });
});
const refresh = live(read, EVERY_MS, " To stop ads meanwhile, send each process SIGUSR1.");
