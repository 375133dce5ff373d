"""How much a campaign could get a day, from a sample of the decisions of late.

The sample is taken by hours. Of an hour of which all that is recorded was looked at, a decision stands for as many requests as in the other
such hours; of one that had more, for its own hour's share. Intervals are Wilson's (1927) at 95 %, with Kish's effective size of a weighted
sample (1965): they tell how far the sample may be off what was, and nothing of how other days may differ.
"""

from collections.abc import Iterable, Sequence
from enum import StrEnum
from math import ceil, floor, log10, sqrt
from typing import NamedTuple

from msgspec import Struct

from adserve.domain.ads import Campaign
from adserve.domain.time import DAY_MS

DECISIONS_MIN = 100
RIVALS_MIN = 3
"""Nothing that hangs on bids is told where only one or two other advertisers bid: it would be theirs."""
PRICE_DIGITS = 2
Z = 1.959964
"""Of the normal distribution, for 95 %."""
UNITS = 1_000
"""A price is that of so many impressions."""


class Reason(StrEnum):
    """Why figures are missing."""

    TOO_FEW_DECISIONS = "too_few_decisions"
    CUSTOM_TARGETING = "custom_targeting"
    TOO_FEW_ADVERTISERS = "too_few_advertisers"


class Limit(StrEnum):
    """What the impressions of a day end at."""

    REQUESTS = "requests"
    DAILY_BUDGET = "daily_budget"
    TOTAL_BUDGET = "total_budget"


class Hour(NamedTuple):
    """An hour of the window: `requests` were counted in it, `sampled` decisions of it were looked at, and `full` says whether more are
    recorded. Of the sampled, so many `looked` for ads, `matched`, and were `won` with `placed` ads that would have cost `cost_micros`."""

    start_ms: int
    requests: int
    full: bool = False
    sampled: int = 0
    looked: int = 0
    matched: int = 0
    won: int = 0
    placed: int = 0
    cost_micros: float = 0.0
    rivals: frozenset[int] = frozenset()


class Figure(Struct, frozen=True):
    """With the ends of its 95 % interval."""

    estimate: int
    low: int
    high: int


class Estimate(Struct, frozen=True, kw_only=True):
    from_ms: int
    decisions: int
    requests: Figure | None = None
    matching: Figure | None = None
    winnable: Figure | None = None
    impressions: Figure | None = None
    limited_by: Limit | None = None
    price_micros: int | None = None
    reason: Reason | None = None


class _Sums(NamedTuple):
    """Weighted: each decision stands for so many requests. `size` is that of a sample without weights that tells as much."""

    days: float
    size: float
    looked: float
    matched: float
    won: float
    placed: float
    cost_micros: float


def estimate(
    hours: Sequence[Hour], campaign: Campaign, left_micros: int | None, now_ms: int, *, tells: bool
) -> Estimate:
    """`hours` go from the first to the present one. `left_micros` is what is left of the total budget; `tells` says whether
    records tell whom the campaign wants."""
    known = _known(hours, now_ms)
    from_ms = known[0].start_ms if known else now_ms
    decisions = sum(hour.looked for hour in known)
    if decisions < DECISIONS_MIN:
        return Estimate(from_ms=from_ms, decisions=decisions, reason=Reason.TOO_FEW_DECISIONS)
    sums = _sums(known, now_ms)
    requests = _counted(sums)
    if not tells:
        return Estimate(
            from_ms=from_ms, decisions=decisions, requests=requests, reason=Reason.CUSTOM_TARGETING
        )
    matching = _share(sums, sums.matched)
    rivals = frozenset[int]().union(*(hour.rivals for hour in known))
    if 0 < len(rivals) < RIVALS_MIN:
        return Estimate(
            from_ms=from_ms,
            decisions=decisions,
            requests=requests,
            matching=matching,
            reason=Reason.TOO_FEW_ADVERTISERS,
        )
    winnable = _share(sums, sums.won)
    impressions, limited_by = _bounded(sums, winnable, campaign, left_micros, now_ms)
    return Estimate(
        from_ms=from_ms,
        decisions=decisions,
        requests=requests,
        matching=matching,
        winnable=winnable,
        impressions=impressions,
        limited_by=limited_by,
        price_micros=_rounded_up(sums.cost_micros / sums.placed * UNITS) if sums.placed else None,
    )


def wilson(share: float, size: float) -> tuple[float, float]:
    """The ends of the interval of a share that was seen in a sample of a size."""
    center = share + Z * Z / (2 * size)
    spread = Z * sqrt(share * (1 - share) / size + Z * Z / (4 * size * size))
    scale = 1 + Z * Z / size
    return max(0.0, (center - spread) / scale), min(1.0, (center + spread) / scale)


def _known(hours: Sequence[Hour], now_ms: int) -> list[Hour]:
    """From the first hour on in which anything was asked for."""
    first = next((place for place, hour in enumerate(hours) if hour.requests or hour.sampled), len(hours))
    return [hour for hour in hours[first:] if hour.start_ms < now_ms]


def _sums(hours: Sequence[Hour], now_ms: int) -> _Sums:
    whole = [hour for hour in hours if not hour.full]
    weight = _weight(whole)
    weights = [_weight((hour,)) if hour.full else weight for hour in hours]

    def total(counts: Iterable[float]) -> float:
        return sum(weight * count for weight, count in zip(weights, counts, strict=True))

    looked = total(hour.looked for hour in hours)
    squares = sum(weight * weight * hour.looked for weight, hour in zip(weights, hours, strict=True))
    return _Sums(
        days=(now_ms - hours[0].start_ms) / DAY_MS,
        size=looked * looked / squares,
        looked=looked,
        matched=total(hour.matched for hour in hours),
        won=total(hour.won for hour in hours),
        placed=total(hour.placed for hour in hours),
        cost_micros=total(hour.cost_micros for hour in hours),
    )


def _weight(hours: Sequence[Hour]) -> float:
    """For how many requests each of their decisions stands: at least for itself, as counts are written some seconds later."""
    sampled = sum(hour.sampled for hour in hours)
    return max(1.0, sum(hour.requests for hour in hours) / sampled) if sampled else 0.0


def _counted(sums: _Sums) -> Figure:
    """A few of very many were sampled, so this is Wilson's interval of a small share: it tells nothing of how many did not look."""
    spread = Z * sqrt(sums.size + Z * Z / 4)
    center = sums.size + Z * Z / 2
    a_day = sums.looked / sums.size / sums.days
    return _figure(a_day * sums.size, a_day * (center - spread), a_day * (center + spread))


def _share(sums: _Sums, part: float) -> Figure:
    low, high = wilson(min(1.0, part / sums.looked), sums.size)
    a_day = sums.looked / sums.days
    return _figure(part / sums.days, a_day * low, a_day * high)


def _bounded(
    sums: _Sums, winnable: Figure, campaign: Campaign, left_micros: int | None, now_ms: int
) -> tuple[Figure, Limit]:
    if not sums.placed:
        return winnable, Limit.REQUESTS
    each = sums.placed / sums.won  # several of its ads may stand in one answer
    ends = [each * count for count in (winnable.estimate, winnable.low, winnable.high)]
    limited_by, micros = Limit.REQUESTS, None
    for limit, of_day in (
        (Limit.DAILY_BUDGET, campaign.budget_daily_micros),
        (Limit.TOTAL_BUDGET, _day_of_total(campaign, left_micros, now_ms)),
    ):
        if of_day is not None and (micros is None or of_day < micros):
            limited_by, micros = limit, of_day
    if micros is None or micros * sums.placed >= ends[0] * sums.cost_micros:
        limited_by = Limit.REQUESTS
    if micros is not None:
        most = micros * sums.placed / sums.cost_micros
        ends = [min(count, most) for count in ends]
    return _figure(*ends), limited_by


def _day_of_total(campaign: Campaign, left_micros: int | None, now_ms: int) -> float | None:
    """What is left is spread over the days left where the pace is even and there is an end; else it may go in one day."""
    if left_micros is None:
        return None
    left = max(0.0, float(left_micros))
    if campaign.pacing == "even" and campaign.ends_at_ms is not None:
        days = (campaign.ends_at_ms - max(now_ms, campaign.starts_at_ms)) / DAY_MS
        return left / max(1.0, days)
    return left


def _figure(estimate: float, low: float, high: float) -> Figure:
    return Figure(round(estimate), floor(low), ceil(high))


def _rounded_up(micros: float) -> int:
    """To PRICE_DIGITS digits: an average of few prices would be one of them."""
    if micros < 1:
        return 1
    step = int(10 ** max(0, floor(log10(micros)) + 1 - PRICE_DIGITS))
    return ceil(micros / step) * step
