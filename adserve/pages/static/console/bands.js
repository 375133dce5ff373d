// A guardrail over time: its estimate, the band that holds at every look at once, and the bound that it must not cross.
import { el } from "../shared/dom.js";
import { FINDINGS, ON_BREACH, capital, clock, figure, isChange, limit, rule, title, when } from "./words.js";

const colour = (name) => getComputedStyle(document.body).getPropertyValue(name).trim();

/** `light-dark()` is resolved by giving the colour to an element. */
function resolved(name) {
  const probe = el("i", { class: "visually-hidden" });
  probe.style.color = colour(name);
  document.body.append(probe);
  const value = getComputedStyle(probe).color;
  probe.remove();
  return value;
}

const faded = (rgb, alpha) => rgb.replace(/^rgb\(([^)]*)\)$/, `rgba($1, ${alpha})`);

function colours() {
  const [ink, muted, line, accent, stop] = ["--ink", "--muted", "--line", "--band", "--stop"].map(resolved);
  return { ink, muted, line, accent, stop };
}

/** Thin lines where one step ends and the next begins. */
const steps = {
  id: "steps",
  beforeDatasetsDraw({ ctx, chartArea: { top, bottom }, scales: { x }, options }) {
    ctx.save();
    ctx.strokeStyle = ctx.fillStyle = options.colours.muted;
    ctx.setLineDash([1, 3]);
    ctx.font = "11px system-ui, sans-serif";
    let free = -Infinity;
    for (const { at, label } of options.turns) {
      const place = x.getPixelForValue(at);
      if (place < x.left || place > x.right) continue;
      ctx.beginPath();
      ctx.moveTo(place, top);
      ctx.lineTo(place, bottom);
      ctx.stroke();
      if (place < free) continue;
      ctx.fillText(label, place + 4, top + 10);
      free = place + 8 + ctx.measureText(label).width;
    }
    ctx.restore();
  },
};

/** What stays in view: the bound, nothing, and the estimates; early bands may be wider than that. */
function window_(guardrail, points) {
  const edge = limit(guardrail);
  const sizes = points.map(({ y }) => y).filter((y) => y !== null && Number.isFinite(y));
  if (!isChange(guardrail.metric)) return { min: 0, max: Math.max(edge * 2, ...sizes.map((y) => y * 1.25)) || 1 };
  const most = Math.max(Math.abs(edge) * 2.5, ...sizes.map((y) => Math.abs(y) * 1.25));
  return { min: -most, max: most };
}

function series(looks, guardrail, plan) {
  const lines = { estimate: [], low: [], high: [] };
  const turns = [];
  let step = null;
  for (const look of looks) {
    const verdict = look.verdicts.find(({ metric, on_breach: kind }) => metric === guardrail.metric && kind === guardrail.on_breach);
    if (!verdict) continue;
    const x = Date.parse(look.at);
    if (look.step !== step) {
      if (step !== null) Object.values(lines).forEach((points) => points.push({ x, y: null }));
      turns.push({ at: x, label: `${plan.steps[look.step - 1]?.percent ?? ""} %` });
      step = look.step;
    }
    for (const name of Object.keys(lines)) lines[name].push({ x, y: verdict[name], step: look.step });
  }
  return { lines, turns };
}

function datasets({ lines }, guardrail, tones) {
  const ends = [lines.estimate[0]?.x, lines.estimate.at(-1)?.x].filter((x) => x !== undefined);
  const edge = limit(guardrail);
  const plain = { pointRadius: 0, borderWidth: 0, spanGaps: false };
  return [
    { ...plain, label: "high", data: lines.high, fill: "+1", backgroundColor: faded(tones.accent, 0.2) },
    { ...plain, label: "low", data: lines.low, fill: false },
    { ...plain, label: "estimate", data: lines.estimate, borderColor: tones.accent, borderWidth: 2, pointRadius: lines.estimate.length < 2 ? 3 : 0, pointBackgroundColor: tones.accent, pointHitRadius: 8 },
    { ...plain, label: "bound", data: ends.map((x) => ({ x, y: edge })), borderColor: tones.stop, borderWidth: 1.5, borderDash: [5, 4], fill: guardrail.direction === "falls" ? "start" : "end", backgroundColor: faded(tones.stop, 0.07) },
  ];
}

function options(guardrail, drawn, tones) {
  const { metric } = guardrail;
  const ticks = { color: tones.muted, font: { size: 11 }, maxRotation: 0, autoSkipPadding: 24 };
  return {
    animation: false, responsive: true, maintainAspectRatio: false, parsing: false, normalized: true,
    colours: tones, turns: drawn.turns,
    interaction: { mode: "index", intersect: false },
    scales: {
      x: { type: "time", grid: { display: false }, border: { color: tones.line }, ticks: { ...ticks, maxTicksLimit: 5 }, time: { displayFormats: { minute: "HH:mm", hour: "HH:mm", second: "HH:mm:ss", day: "d MMM" } } },
      y: { ...window_(guardrail, drawn.lines.estimate), grid: { color: tones.line }, border: { display: false }, ticks: { ...ticks, maxTicksLimit: 5, callback: (value) => figure(metric, value) } },
    },
    plugins: {
      legend: { display: false },
      tooltip: {
        displayColors: false,
        filter: ({ dataset }) => dataset.label === "estimate",
        callbacks: {
          title: ([item]) => (item ? `${when(item.parsed.x)}, step ${item.raw.step}` : ""),
          label: ({ parsed, dataIndex }) => `${figure(metric, parsed.y)}   (${figure(metric, drawn.lines.low[dataIndex]?.y)} to ${figure(metric, drawn.lines.high[dataIndex]?.y)})`,
        },
      },
    },
  };
}

/** A card that lives as long as its plan is looked at. */
export class Band {
  #guardrail;
  #plan;
  #looks = [];
  #chart = null;
  #canvas = el("canvas", { role: "img" });
  #empty = el("p", { class: "note band-empty" }, "Nothing to draw yet.");
  #pill = el("span", { class: "pill" });
  #estimate = el("p", { class: "band-estimate" });
  #words = el("p", { class: "band-words" });

  constructor(guardrail, plan) {
    this.#guardrail = guardrail;
    this.#plan = plan;
    this.element = el(
      "article",
      { class: "card band" },
      el("div", { class: "card-head" }, el("h3", {}, title(guardrail.metric)), this.#pill),
      el("div", { class: "band-figures" }, this.#estimate, el("p", { class: "aside" }, `${rule(guardrail)}, or it ${ON_BREACH[guardrail.on_breach]}`)),
      el("div", { class: "band-chart" }, this.#canvas, this.#empty),
      this.#words,
    );
  }

  /** `looks` oldest first; `verdict` is the newest one, if there is any. */
  show(plan, looks, verdict) {
    this.#plan = plan;
    this.#looks = looks;
    const { metric } = this.#guardrail;
    const finding = verdict?.finding ?? "no_data";
    this.#pill.className = `pill is-${finding}`;
    this.#pill.textContent = FINDINGS[finding];
    this.element.classList.toggle("is-breached", finding === "breached");
    const known = verdict && verdict.estimate !== null;
    this.#estimate.replaceChildren(
      el("strong", {}, known ? figure(metric, verdict.estimate) : "–"),
      el("span", { class: "aside" }, known && verdict.low !== null ? `${figure(metric, verdict.low)} to ${figure(metric, verdict.high)}` : ""),
    );
    this.#words.textContent = verdict ? `${capital(verdict.words)}.` : "The first look comes within a minute of the first step.";
    this.draw();
  }

  draw() {
    const tones = colours();
    const drawn = series(this.#looks, this.#guardrail, this.#plan);
    const any = drawn.lines.estimate.some(({ y }) => y !== null);
    this.#canvas.hidden = !any;
    this.#empty.hidden = any;
    if (!any) return;
    this.#canvas.setAttribute("aria-label", `${title(this.#guardrail.metric)} from ${clock(drawn.lines.estimate[0].x)} to ${clock(drawn.lines.estimate.at(-1).x)}. ${this.#words.textContent}`);
    const data = { datasets: datasets(drawn, this.#guardrail, tones) };
    const shaped = options(this.#guardrail, drawn, tones);
    if (this.#chart) {
      this.#chart.data = data;
      this.#chart.options = shaped;
      this.#chart.update();
    } else {
      this.#chart = new Chart(this.#canvas, { type: "line", data, options: shaped, plugins: [steps] });
    }
  }

  end() {
    this.#chart?.destroy();
  }
}
