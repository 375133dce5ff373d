"""What came of a crowd's visits, as the crowd was told and the database confirms."""

from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Struct

from adserve.simulation.crowd import Crowd
from adserve.simulation.report import Stored, Tally, disagreements


class Summary(Struct, frozen=True):
    """`feeds` went through the wrapper, `requests` asked for slots; `placed` counts the ads of both.

    `p50_ms` and `p99_ms` are how long answers to requests took, with the whole crowd asking at once. Without
    `differences` the callers, the events, the postings and the reconciliation all say the same.
    """

    viewers: int
    feeds: int
    requests: int
    placed: int
    no_fill: dict[str, int]
    events: dict[str, int]
    billed_micros: dict[str, int]
    billed_twice: int
    reconciliation: str
    differences: list[str]
    p50_ms: float
    p99_ms: float

    def json(self) -> str:
        return msgspec.json.encode(self).decode()


def summary_of(
    crowd: Crowd,
    tally: Tally,
    stored: Stored,
    *,
    viewers: int,
    campaigns: Mapping[int, str],
    differences: Sequence[str],
) -> Summary:
    """`campaigns` are names by id; `differences` those that reconciliation found."""
    found = [*disagreements(tally, stored), *differences]
    outcomes: Counter[str] = Counter()
    for (_, outcome), events in tally.events.items():
        outcomes[outcome] += events
    return Summary(
        viewers=viewers,
        feeds=crowd.feeds,
        requests=tally.requests,
        placed=tally.placed,
        no_fill=dict(sorted(tally.no_fill.items())),
        events=dict(sorted(outcomes.items())),
        billed_micros={
            name: tally.billed_micros[campaign]
            for campaign, name in campaigns.items()
            if tally.billed_micros[campaign]
        },
        billed_twice=stored.billed_twice,
        reconciliation="differs" if found else "exact",
        differences=found,
        p50_ms=_percentile(crowd.slots_ms, 50),
        p99_ms=_percentile(crowd.slots_ms, 99),
    )


def text_of(summary: Summary) -> str:
    lines = [
        f"{summary.viewers:,} viewers, {summary.feeds:,} feeds, {summary.requests:,} requests for slots",
        f"{summary.placed:,} ads placed; slots answered in {summary.p50_ms} ms (p50), {summary.p99_ms} ms (p99)",
        "",
    ]
    lines += [f"{'no fill: ' + reason:<40} {count:>12,}" for reason, count in summary.no_fill.items()]
    lines += [f"{'events: ' + outcome:<40} {count:>12,}" for outcome, count in summary.events.items()]
    lines.append("")
    lines += [f"{name:<40} {micros:>12,} micros" for name, micros in summary.billed_micros.items()]
    lines += [f"{'all':<40} {sum(summary.billed_micros.values()):>12,} micros", ""]
    lines += [f"tickets billed twice: {summary.billed_twice}", f"reconciliation: {summary.reconciliation}"]
    return "\n".join([*lines, *(f"  {difference}" for difference in summary.differences)])


def _percentile(times_ms: Sequence[float], percent: int) -> float:
    ordered = sorted(times_ms)
    return round(ordered[min(len(ordered) - 1, len(ordered) * percent // 100)], 1) if ordered else 0.0
