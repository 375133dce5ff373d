"""The figures as JSON for whoever compares runs, and as a table for whoever reads one."""

from typing import Any

from loadtest.events import EventsFigures
from loadtest.figures import Plan, Spread
from loadtest.processes import Cores
from loadtest.slots import SlotsFigures


def as_json(
    plan: Plan, cores: Cores, rates: str, slots: SlotsFigures, events: EventsFigures
) -> dict[str, Any]:
    """The medians under names that do not change, everything else beside them."""
    return {
        "slots_per_s": round(slots.adserve.median, 1),
        "bare_per_s": round(slots.bare.median, 1),
        "slots_ratio": round(slots.ratio, 4),
        "slots_cpu_ratio": round(slots.cpu_ratio, 4),
        "events_per_s": round(events.adserve.median, 1),
        "insert_ceiling_per_s": round(events.insert.median, 1),
        "events_ratio": round(events.ratio, 4),
        "settle_ceiling_per_s": round(events.settle.median, 1),
        "single_events_per_s": round(events.singles.median, 1),
        "cores_apart": cores.apart,
        "rates": rates,
        "plan": plan._asdict(),
        "slots": _plain(slots),
        "events": _plain(events),
    }


def as_table(slots: SlotsFigures, events: EventsFigures) -> str:
    rows = (
        ("slots/s", "adserve", slots.adserve, f"{slots.ratio:.3f} of bare"),
        ("", "bare aiohttp", slots.bare, f"generator {slots.generator_busy:.0%} busy, alone {slots.generator_per_s:,.0f}/s"),
        ("CPU us", "adserve, a slot request", slots.adserve_cpu_us, f"{slots.cpu_ratio:.3f} as cheap as bare"),
        ("", "bare aiohttp", slots.bare_cpu_us, ""),
        ("events/s", "adserve, batches of 100", events.adserve, f"{events.ratio:.3f} of the insert"),
        ("", "plain insert", events.insert, ""),
        ("", "settle() alone", events.settle, f"adserve {events.adserve.median / events.settle.median:.3f} of it"),
        ("", "adserve, one a call", events.singles, ""),
    )  # fmt: skip
    lines = [
        f"{what:<10}{who:<26}{spread.median:>10,.0f}   ({spread.least:,.0f} to {spread.most:,.0f})   {note}"
        for what, who, spread, note in rows
    ]
    latencies = (
        f"a slot request under this load: p50 {slots.p50_ms:.2f} ms, p99 {slots.p99_ms:.2f} ms "
        f"(bare {slots.bare_p50_ms:.2f}, {slots.bare_p99_ms:.2f}); "
        f"one at a time: p50 {slots.alone_p50_ms:.2f} ms, p99 {slots.alone_p99_ms:.2f} ms",
        f"a call of 100 events: p50 {events.p50_ms:.1f} ms, p99 {events.p99_ms:.1f} ms",
        f"ads that fit a viewer: p50 {slots.matched_p50}, p99 {slots.matched_p99}; requests with an ad "
        f"{slots.filled:.1%}, ads a request {slots.ads_per_request:.2f}; outcomes {events.outcomes}",
    )
    return "\n".join((*lines, *latencies))


def _plain(figures: SlotsFigures | EventsFigures) -> dict[str, Any]:
    return {
        name: value._asdict() if isinstance(value, Spread) else value
        for name, value in figures._asdict().items()
    }
