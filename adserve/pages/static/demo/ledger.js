// The two live lists: events as they commit, and money per campaign.
import { byId, el } from "../shared/dom.js";
import { clock, money, words } from "./format.js";

const OUTCOMES = { unbilled_kind: "not billed" };

export class EventLog {
  #seen = null;

  show(rows) {
    const known = this.#seen;
    this.#seen = new Set(rows.map((row) => row.event));
    byId("log").replaceChildren(...rows.map((row) => this.#row(row, known && !known.has(row.event))));
    if (!rows.length) byId("log").append(el("li", { class: "empty" }, "Nothing yet. An ad on the screen makes the first row."));
  }

  connected(on) {
    byId("log-state").textContent = on ? "live" : "reconnecting…";
  }

  #row(row, fresh) {
    const paid = row.billed_micros > 0;
    return el(
      "li",
      { class: fresh ? "is-new" : null, "data-event": row.event },
      el("time", { datetime: row.received_at }, clock(row.received_at)),
      el("span", { class: `kind kind-${row.kind}` }, words(row.kind)),
      el("span", { class: "about" }, `${row.advertiser_name} · ${row.campaign_name}`),
      el("span", { class: paid ? "paid" : "paid unpaid" }, paid ? money(row.billed_micros, row.currency) : OUTCOMES[row.outcome] ?? words(row.outcome).toLowerCase()),
    );
  }
}

export class MoneyBars {
  campaigns = new Map();
  #bars = new Map();
  #order = null;

  show(campaigns) {
    this.campaigns = new Map(campaigns.map((row) => [row.campaign, row]));
    const sum = campaigns.reduce((total, { spent_micros: spent }) => total + spent, 0);
    if (campaigns.length) byId("money-total").textContent = money(sum, campaigns[0].currency);
    for (const campaign of campaigns) this.#update(campaign);
    const ranked = campaigns.toSorted((one, other) => other.spent_micros - one.spent_micros);
    const order = ranked.map(({ campaign }) => campaign).join();
    if (order === this.#order) return;
    this.#order = order;
    byId("money").replaceChildren(...ranked.map(({ campaign }) => this.#bars.get(campaign).row));
  }

  #update({ campaign, name, advertiser_name: advertiser, spent_micros: spent, daily_micros: daily, currency }) {
    let bar = this.#bars.get(campaign);
    if (!bar) {
      bar = { sum: el("span", { class: "sum" }), meter: el("i") };
      bar.row = el("li", {}, el("span", { class: "name" }, advertiser, el("span", {}, ` · ${name}`)), bar.sum, el("span", { class: "meter" }, bar.meter));
      this.#bars.set(campaign, bar);
    }
    bar.sum.replaceChildren(el("b", {}, money(spent, currency)), daily ? ` of ${money(daily, currency)}` : "");
    bar.meter.style.setProperty("--share", daily ? Math.min(1, spent / daily) : 0);
    bar.row.classList.toggle("is-spent", Boolean(daily) && spent >= daily * 0.98);
  }
}
