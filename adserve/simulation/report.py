"""What a replay came to: the same bytes for the same log and seed, so no moment of the real clock and no id of the run."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from adserve.domain.ads import Cap
from adserve.domain.events import EventKind, Outcome
from adserve.domain.slots import NoFill
from adserve.simulation.caller import EventAnswer, SlotsAnswer
from adserve.simulation.logs import LogMapping, Malformed

MALFORMED_NAMED_MAX = 20

_OUT_OF_ROLLOUT = frozenset({NoFill.ROLLOUT_PAUSED, NoFill.NOT_IN_ROLLOUT})
_NOT_COUNTED = frozenset({Outcome.LATE, Outcome.OVER_CAP, Outcome.DUPLICATE, Outcome.REFUSED})
_NOT_STORED = frozenset({Outcome.DUPLICATE, Outcome.REFUSED})


class Stored(Protocol):
    """What the database holds: events by kind and outcome, micros by campaign."""

    @property
    def events(self) -> Mapping[tuple[str, str], int]: ...
    @property
    def billed_micros(self) -> Mapping[int, int]: ...
    @property
    def posted_micros(self) -> Mapping[int, int]: ...
    @property
    def billed_twice(self) -> int: ...


class Tally:
    """What a caller of the service sees: the answers to its requests and to its events."""

    def __init__(self) -> None:
        self.requests = 0
        self.placed = 0
        self.no_fill: Counter[str] = Counter()
        self.events: Counter[tuple[str, str]] = Counter()
        self.by_campaign: Counter[tuple[int, str]] = Counter()
        self.billed_micros: Counter[int] = Counter()
        self.malformed: list[Malformed] = []

    def asked(self, answer: SlotsAnswer) -> None:
        self.requests += 1
        self.placed += len(answer.placements)
        if answer.no_fill is not None:
            self.no_fill[answer.no_fill] += 1

    def happened(self, campaign: int, kind: str, answer: EventAnswer) -> None:
        self.events[kind, answer.outcome] += 1
        if answer.outcome not in _NOT_COUNTED:
            self.by_campaign[campaign, kind] += 1
        if answer.billed is not None:
            self.billed_micros[campaign] += answer.billed.micros

    def in_rollout(self) -> int:
        return self.requests - sum(self.no_fill[reason] for reason in _OUT_OF_ROLLOUT)

    def counted(self, kind: EventKind) -> int:
        return sum(events for (_, of), events in self.by_campaign.items() if of == kind)


def disagreements(tally: Tally, stored: Stored) -> list[str]:
    """What the callers were told that the database does not say, and what the database says against itself."""
    told = {key: events for key, events in tally.events.items() if key[1] not in _NOT_STORED}
    found = [
        f"{kind} {outcome}: callers were told {told.get((kind, outcome), 0)}, "
        f"stored are {stored.events.get((kind, outcome), 0)}"
        for kind, outcome in _differing(told, stored.events)
    ]
    for name, micros in (("events", stored.billed_micros), ("postings", stored.posted_micros)):
        found += [
            f"campaign {campaign}: callers were told {tally.billed_micros[campaign]} micros, "
            f"the {name} say {micros.get(campaign, 0)}"
            for campaign in _differing(tally.billed_micros, micros)
        ]
    if stored.billed_twice:
        found.append(f"{stored.billed_twice} tickets are billed more than once")
    return found


def _differing(first: Mapping[Any, int], second: Mapping[Any, int]) -> list[Any]:
    return [key for key in sorted({*first, *second}) if first.get(key, 0) != second.get(key, 0)]


class MalformedLine(Struct, frozen=True):
    line: int
    reason: str


class CampaignFigures(Struct, frozen=True):
    """`billed_units` is in the log's own unit of price, of one impression's thousandth: what the log would sum up."""

    campaign: str
    impressions: int
    clicks: int
    billed_micros: int
    billed_units: int | float


class CapFigures(Struct, frozen=True):
    scope: str
    count: int
    window_s: int
    violations: int


class Report(Struct, frozen=True):
    """`complete` is false when the replay was stopped; the figures are then those until there."""

    complete: bool
    rows: int
    malformed: int
    malformed_lines: list[MalformedLine]
    in_rollout: int
    placed: int
    no_fill: dict[str, int]
    capped: int
    impressions: int
    clicks: int
    events: dict[str, dict[str, int]]
    currency: str
    billed_micros: int
    billed_units: int | float
    campaigns: list[CampaignFigures]
    caps: list[CapFigures]
    billed_twice: int
    differences: list[str]

    @property
    def adds_up(self) -> bool:
        return not self.differences and not any(cap.violations for cap in self.caps)

    def json(self) -> str:
        return msgspec.json.encode(self).decode()


def report_of(
    tally: Tally,
    stored: Stored,
    *,
    campaigns: Mapping[int, str],
    mapping: LogMapping,
    caps: Sequence[tuple[Cap, int]],
    differences: Sequence[str],
    complete: bool,
) -> Report:
    """`caps` come with their violations; `differences` are those that reconciliation found."""
    named = sorted(tally.malformed)[:MALFORMED_NAMED_MAX]
    events: dict[str, dict[str, int]] = {}
    for (kind, outcome), count in sorted(tally.events.items()):
        events.setdefault(kind, {})[outcome] = count
    billed_micros = sum(tally.billed_micros.values())
    return Report(
        complete=complete,
        rows=tally.requests + len(tally.malformed),
        malformed=len(tally.malformed),
        malformed_lines=[MalformedLine(line, reason) for line, reason in named],
        in_rollout=tally.in_rollout(),
        placed=tally.placed,
        no_fill=dict(sorted(tally.no_fill.items())),
        capped=tally.no_fill[NoFill.FREQUENCY_CAPPED],
        impressions=tally.counted(EventKind.IMPRESSION),
        clicks=tally.counted(EventKind.CLICK),
        events=events,
        currency=mapping.currency,
        billed_micros=billed_micros,
        billed_units=_units(billed_micros, mapping),
        campaigns=[
            CampaignFigures(
                key,
                tally.by_campaign[campaign, EventKind.IMPRESSION],
                tally.by_campaign[campaign, EventKind.CLICK],
                tally.billed_micros[campaign],
                _units(tally.billed_micros[campaign], mapping),
            )
            for campaign, key in sorted(campaigns.items(), key=lambda named: named[1])
        ],
        caps=[CapFigures(cap.scope, cap.count, cap.window_s, violations) for cap, violations in caps],
        billed_twice=stored.billed_twice,
        differences=[*disagreements(tally, stored), *differences],
    )


def _units(micros: int, mapping: LogMapping) -> int | float:
    """What impressions cost in all, in the unit in which the log states the price of 1,000 of them."""
    units, rest = divmod(micros * 1_000, mapping.price_unit_micros)
    return units if rest == 0 else micros * 1_000 / mapping.price_unit_micros


def text_of(report: Report) -> str:
    return "\n".join([*_counts(report), "", *_money(report), "", *_verdict(report)])


def _counts(report: Report) -> list[str]:
    lines = [_line("rows", report.rows) + ("" if report.complete else "  (stopped before the end)")]
    lines.append(_line("malformed", report.malformed))
    lines += [f"  line {line.line}: {line.reason}" for line in report.malformed_lines]
    lines += [_line("in rollout", report.in_rollout), _line("placed", report.placed)]
    lines += [_line(f"  no fill: {reason}", count) for reason, count in report.no_fill.items()]
    lines.append(_line("capped", report.capped))
    lines += [_line("impressions", report.impressions), _line("clicks", report.clicks)]
    for kind, outcomes in report.events.items():
        lines += [_line(f"  {kind}: {outcome}", count) for outcome, count in outcomes.items()]
    return lines


def _money(report: Report) -> list[str]:
    row = "{:<24} {:>12} {:>8} {:>16} {:>14}".format
    lines = [row("campaign", "impressions", "clicks", f"micro-{report.currency}", "log units")]
    lines += [
        row(
            of.campaign,
            f"{of.impressions:,}",
            f"{of.clicks:,}",
            f"{of.billed_micros:,}",
            f"{of.billed_units:,}",
        )
        for of in report.campaigns
    ]
    total = (
        f"{report.impressions:,}",
        f"{report.clicks:,}",
        f"{report.billed_micros:,}",
        f"{report.billed_units:,}",
    )
    return [*lines, row("all", *total)]


def _verdict(report: Report) -> list[str]:
    lines = [_line(f"over cap {cap.scope}:{cap.count}/{cap.window_s}", cap.violations) for cap in report.caps]
    lines.append(_line("tickets billed twice", report.billed_twice))
    if report.differences:
        return [
            *lines,
            "reconciliation: DIFFERENCES",
            *(f"  {difference}" for difference in report.differences),
        ]
    return [*lines, "reconciliation: exact"]


def _line(name: str, count: int) -> str:
    return f"{name:<32} {count:>12,}"
