"""The figures as JSON for whoever compares runs, and as a table for whoever reads one."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import orjson

from loadtest.events import BATCH_EVENTS, EventsFigures
from loadtest.figures import Plan, Spread, spread_of
from loadtest.processes import Cores
from loadtest.slots import Round, Seen, most_refused


class Memory(NamedTuple):
    """Resident megabytes of the service with the usual and with the large catalogue, after its load."""

    usual_mb: float
    large_mb: float


class Figures(NamedTuple):
    plan: Plan
    cores: Cores
    rates: str
    slots: Seen
    memory: Memory
    events: EventsFigures

    def over_rounds(self, figure: Callable[[Round], float | None]) -> Spread | None:
        """None for what was not measured."""
        values = [value for one in self.slots.rounds if (value := figure(one)) is not None]
        return spread_of(values) if values else None

    @property
    def ratios(self) -> dict[str, float | None]:
        """Medians of what each round saw of two servers one after the other."""
        spreads = {name: self.over_rounds(figure) for name, figure in RATIOS.items()}
        return {name: None if spread is None else round(spread.median, 4) for name, spread in spreads.items()}


RATIOS: dict[str, Callable[[Round], float | None]] = {
    "slots_ratio": lambda one: one.usual.per_s / one.bare.per_s,
    "slots_cpu_ratio": lambda one: one.bare.cpu_us / one.usual.cpu_us,
    "slots_ratio_redis": lambda one: one.shared and one.shared.per_s / one.bare.per_s,
    "growth_100_to_100k": lambda one: one.large.cpu_us / one.small.cpu_us,
    "p99_ratio_at_70": lambda one: one.comfortable.p99_ms / one.bare_comfortable.p99_ms,
    "goodput_at_2x": lambda one: one.twice.good_per_s / one.usual.per_s,
    "goodput_at_3x": lambda one: one.thrice.good_per_s / one.usual.per_s,
    "admitted_p99_ratio_at_2x": lambda one: one.twice.p99_ms / one.comfortable.p99_ms,
    "admitted_p99_ratio_at_3x": lambda one: one.thrice.p99_ms / one.comfortable.p99_ms,
    "two_worker_cpu_ratio": lambda one: (
        one.two and one.like_one_of_two and one.two.cpu_us / one.like_one_of_two.cpu_us
    ),
}

SPREADS: dict[str, Callable[[Round], float | None]] = {
    "slots_per_s": lambda one: one.usual.per_s,
    "slots_cpu_us": lambda one: one.usual.cpu_us,
    "bare_per_s": lambda one: one.bare.per_s,
    "bare_cpu_us": lambda one: one.bare.cpu_us,
    "small_cpu_us": lambda one: one.small.cpu_us,
    "large_cpu_us": lambda one: one.large.cpu_us,
    "redis_per_s": lambda one: one.shared and one.shared.per_s,
    "redis_cpu_us": lambda one: one.shared and one.shared.cpu_us,
    "one_of_two_cpu_us": lambda one: one.like_one_of_two and one.like_one_of_two.cpu_us,
    "two_workers_per_s": lambda one: one.two and one.two.per_s,
    "two_workers_cpu_us": lambda one: one.two and one.two.cpu_us,
    "p50_ms_at_70": lambda one: one.comfortable.p50_ms,
    "p99_ms_at_70": lambda one: one.comfortable.p99_ms,
    "bare_p99_ms_at_70": lambda one: one.bare_comfortable.p99_ms,
    "good_per_s_at_2x": lambda one: one.twice.good_per_s,
    "good_per_s_at_3x": lambda one: one.thrice.good_per_s,
    "admitted_p99_ms_at_2x": lambda one: one.twice.p99_ms,
    "admitted_p99_ms_at_3x": lambda one: one.thrice.p99_ms,
    "refused_at_2x": lambda one: one.twice.refused,
    "refused_at_3x": lambda one: one.thrice.refused,
    "events_p99_ms_at_2x": lambda one: one.twice.side.p99_ms,
    "events_p99_ms_at_3x": lambda one: one.thrice.side.p99_ms,
}


def as_json(figures: Figures) -> dict[str, Any]:
    """The medians under names that do not change, everything else beside them."""
    events, slots, placed = figures.events, figures.slots, _placed(figures.slots)
    spreads = {name: figures.over_rounds(figure) for name, figure in SPREADS.items()}
    medians = {name: None if spread is None else round(spread.median, 3) for name, spread in spreads.items()}
    return {
        **figures.ratios,
        "events_batch_ratio": round(events.spread("batch_ratio").median, 4),
        "events_single_ratio": round(events.spread("single_ratio").median, 4),
        "rss_mb_10k": round(figures.memory.usual_mb, 1),
        "rss_mb_100k": round(figures.memory.large_mb, 1),
        **medians,
        "matched_p50": _quantile(slots.matched, 50),
        "matched_p99": _quantile(slots.matched, 99),
        "filled": sum(map(bool, placed)) / len(placed),
        "ads_per_request": sum(placed) / len(placed),
        "alone_p50_ms": slots.alone.p50_ms,
        "alone_p99_ms": slots.alone.p99_ms,
        "refused_in_closed_loop": most_refused(slots.rounds),
        "generator_per_s": slots.generator_per_s,
        "generator_busy": max(one.bare.load.busy for one in slots.rounds),
        "events_per_s": round(events.spread("batched_per_s").median, 1),
        "same_rows_per_s": round(events.spread("same").median, 1),
        "narrow_insert_per_s": round(events.spread("narrow").median, 1),
        "settle_ceiling_per_s": round(events.spread("settle").median, 1),
        "single_events_per_s": round(events.spread("singles_per_s").median, 1),
        "events_p50_ms": events.p50_ms,
        "events_p99_ms": events.p99_ms,
        "event_outcomes": events.outcomes,
        "cores_apart": figures.cores.apart,
        "rates": figures.rates,
        "plan": {**figures.plan._asdict(), "sizes": list(figures.plan.sizes)},
        "spreads": {name: spread and spread._asdict() for name, spread in spreads.items()},
    }


def as_table(figures: Figures) -> str:
    ratios, slots, events, placed = figures.ratios, figures.slots, figures.events, _placed(figures.slots)
    of_slots = [
        f"{name:<26}{_number(spread and spread.median):>10}   "
        f"({_number(spread and spread.least)} to {_number(spread and spread.most)})"
        for name, spread in ((name, figures.over_rounds(figure)) for name, figure in SPREADS.items())
    ]
    of_events = [
        f"{name:<26}{spread.median:>10,.0f}   ({spread.least:,.0f} to {spread.most:,.0f})"
        for name, spread in (
            (f"events/s, {BATCH_EVENTS} a call", events.spread("batched_per_s")),
            ("events/s, same rows", events.spread("same")),
            ("events/s, narrow insert", events.spread("narrow")),
            ("events/s, settling alone", events.spread("settle")),
            ("events/s, one a call", events.spread("singles_per_s")),
        )
    ]
    notes = (
        f"memory: {figures.memory.usual_mb:,.0f} MB with {figures.plan.sizes.usual:,} campaigns, "
        f"{figures.memory.large_mb:,.0f} MB with {figures.plan.sizes.large:,}",
        f"ads that fit a viewer: p50 {_quantile(slots.matched, 50)}, p99 {_quantile(slots.matched, 99)}; requests with an "
        f"ad {sum(map(bool, placed)) / len(placed):.1%}, ads a request {sum(placed) / len(placed):.2f}",
        f"alone: p50 {slots.alone.p50_ms:.2f} ms, p99 {slots.alone.p99_ms:.2f} ms; the generator alone does "
        f"{slots.generator_per_s:,.0f}/s",
        f"a call of {BATCH_EVENTS} events: p50 {events.p50_ms:.1f} ms, p99 {events.p99_ms:.1f} ms; outcomes {events.outcomes}; "
        f"{events.spread('batch_ratio').median:.3f} of an insert of the same rows; one a call: "
        f"{events.spread('single_ratio').median:.3f} of the bare handler",
    )
    of_ratios = [f"{name:<26}{_number(ratio):>10}" for name, ratio in ratios.items()]
    return "\n".join((*of_ratios, "", *of_slots, "", *of_events, "", *notes))


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 1_000 else f"{value:.3g}"


def _placed(slots: Seen) -> list[int]:
    """How many ads each answer has that was looked at."""
    bodies = (body for one in slots.rounds for body in one.usual.load.bodies)
    return [len(orjson.loads(body)["placements"]) for body in bodies]


def _quantile(ordered: Sequence[int], percent: int) -> int:
    return ordered[len(ordered) * percent // 100]
