// Numbers, times and names as an operator reads them.

const grouped = new Intl.NumberFormat("en");
const regions = new Intl.DisplayNames("en", { type: "region" });
const MINUS = "\u2212";

export const count = (number) => (number === null || number === undefined ? "–" : grouped.format(number));

export const percent = (number) => `${grouped.format(number)} %`;

export const several = (number, noun) => `${count(number)} ${number === 1 ? noun : `${noun}s`}`;

export function country(code) {
  try {
    return regions.of(code);
  } catch {
    return code;
  }
}

export const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

export const named = (identifier) => identifier.replaceAll("_", " ").replaceAll("-", " ");

/** Where a plan works: "Indonesia, Singapore". */
export const places = ({ surface, countries }) =>
  countries.length ? `${countries.slice(0, 3).map(country).join(", ")}${countries.length > 3 ? ` and ${countries.length - 3} more` : ""}` : `all of ${surface}`;

const UNITS = [["d", 86_400], ["h", 3_600], ["min", 60], ["s", 1]];

/** "2 d 3 h", "4 min": the two greatest units, and no more than is worth reading. */
export function span(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  const first = UNITS.findIndex(([, size]) => whole >= size);
  if (first < 0) return "0 s";
  const [unit, size] = UNITS[first];
  const rest = UNITS[first + 1];
  const more = rest ? Math.floor((whole % size) / rest[1]) : 0;
  return `${Math.floor(whole / size)} ${unit}${more ? ` ${more} ${rest[0]}` : ""}`;
}

export const since = (moment) => (Date.now() - new Date(moment)) / 1_000;

const clockOf = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const dayOf = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });

export const clock = (moment) => clockOf.format(new Date(moment));

export function when(moment) {
  const date = new Date(moment);
  return date.toDateString() === new Date().toDateString() ? clock(date) : `${dayOf.format(date)}, ${clock(date)}`;
}

/** What each metric is called, and how its figures are written; `change` is relative to the control. */
export const METRICS = {
  statuses_viewed: ["Statuses viewed", "change"],
  session_seconds: ["Session seconds", "change"],
  returns_next_day: ["Returns next day", "change"],
  posts_made: ["Posts made", "change"],
  hide_rate: ["Hide rate", "share"],
  report_rate: ["Report rate", "share"],
  ad_load: ["Ads per session", "number"],
  click_rate: ["Click rate", "share"],
  no_fill: ["No ad found", "share"],
  errors: ["Errors", "share"],
  decision_p99_ms: ["Decision p99", "ms"],
  feed_latency_p99_ms: ["Feed latency p99", "ms"],
  spend_pace: ["Spend off pace", "share"],
  calibration: ["Calibration", "number"],
};

export const isChange = (metric) => METRICS[metric]?.[1] === "change";

export const title = (metric) => METRICS[metric]?.[0] ?? named(metric);

const digits = (number, most) => new Intl.NumberFormat("en", { maximumSignificantDigits: most }).format(number);

/** A figure of a metric with its unit. */
export function figure(metric, value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  const sign = value < 0 ? MINUS : isChange(metric) && value > 0 ? "+" : "";
  switch (METRICS[metric]?.[1]) {
    case "change":
      return `${sign}${(size * 100).toFixed(size >= 1 ? 0 : size >= 0.1 ? 1 : 2)} %`;
    case "share":
      return `${digits(size * 100, 3)} %`;
    case "ms":
      return `${digits(size, 3)} ms`;
    default:
      return `${sign}${digits(size, 3)}`;
  }
}

/** Where harm begins, on the scale of the estimate. */
export const limit = ({ metric, direction, bound }) => (isChange(metric) && direction === "falls" ? -bound : bound);

export const rule = (guardrail) =>
  `${guardrail.direction === "falls" ? "not below" : "not above"} ${figure(guardrail.metric, limit(guardrail))}`;

export const ON_BREACH = { roll_back: "rolls back", hold: "holds", warn: "warns" };

export const STATES = {
  scheduled: "Scheduled",
  running: "Running",
  held: "Held",
  awaiting_approval: "Needs approval",
  paused: "Paused",
  completed: "Completed",
  rolled_back: "Rolled back",
  aborted: "Aborted",
};

export const FINDINGS = { no_data: "Gathering data", open: "Undecided", fine: "Fine", breached: "Breached" };
