"""How much a campaign could get a day, from a sample of the decisions of late.

The sample is taken by hours. Of an hour of which all that is recorded was looked at, a decision stands for as many requests as in the other
such hours; of one that had more, for its own hour's share. Intervals are Wilson's (1927) at 95 %, of a count of few among many, with Kish's
effective size of a weighted sample (1965). They tell how far the sample may be off what was, and nothing of how other days may differ; nor, by
their width, how many requests did not look for ads, which is the operator's.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from enum import StrEnum
from math import ceil, floor, inf, log10, sqrt
from types import MappingProxyType
from typing import NamedTuple

from msgspec import Struct

from adserve.domain.ads import Campaign
from adserve.domain.time import DAY_MS

DECISIONS_MIN = 100
RIVALS_MIN, RIVAL_SHARE_MIN = 3, 0.05
"""What hangs on bids is told only where it hangs on those of so many other advertisers, each in such a share of the decisions: else it would tell
what one or two of them bid."""
PRICE_DIGITS = 2
Z = 1.959964
"""Of the normal distribution, for 95 %."""
UNITS = 1_000
"""A price is that of so many impressions."""


NOBODY: Mapping[int, int] = MappingProxyType({})


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
    recorded. Of the sampled, so many `looked` for ads, `matched`, and were `won` with `placed` ads that would have cost `cost_micros`. In those
    that are `contested` that hung on others' bids: `rivals` counts the decisions of each of these advertisers."""

    start_ms: int
    requests: int
    full: bool = False
    sampled: int = 0
    looked: int = 0
    matched: int = 0
    won: int = 0
    placed: int = 0
    cost_micros: float = 0.0
    contested: int = 0
    rivals: Mapping[int, int] = NOBODY


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


class _Scale:
    """From the decisions of each hour to the requests of a day."""

    def __init__(self, weights: Sequence[float], looked: Sequence[int], days: float) -> None:
        self._weights = weights
        self._days = days
        self._usual = self.total(looked, 2) / self.total(looked)

    def total(self, counts: Sequence[float], power: int = 1) -> float:
        return sum(weight**power * count for weight, count in zip(self._weights, counts, strict=True))

    def figure(self, counts: Sequence[float], times: float = 1.0) -> Figure:
        """`times` so many of each."""
        total = self.total(counts)
        weight = self.total(counts, 2) / total if total else self._usual
        estimate, low, high = (
            count * weight * times / self._days for count in (total / weight, *wilson(total / weight))
        )
        return Figure(round(estimate), floor(low), ceil(high))


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
    scale = _Scale(_weights(known), [hour.looked for hour in known], (now_ms - from_ms) / DAY_MS)
    requests = scale.figure([hour.looked for hour in known])
    if not tells:
        return Estimate(
            from_ms=from_ms, decisions=decisions, requests=requests, reason=Reason.CUSTOM_TARGETING
        )
    matching = scale.figure([hour.matched for hour in known])
    if _would_tell_bids(known):
        return Estimate(
            from_ms=from_ms,
            decisions=decisions,
            requests=requests,
            matching=matching,
            reason=Reason.TOO_FEW_ADVERTISERS,
        )
    won, placed, cost_micros = (
        scale.total(counts)
        for counts in zip(*[(of.won, of.placed, of.cost_micros) for of in known], strict=True)
    )
    each_micros = cost_micros / placed if placed else 0.0
    winnable = [hour.won for hour in known]
    # Several of its ads may stand in one answer.
    impressions = scale.figure(winnable, placed / won if won else 1.0)
    bounded, limited_by = _bounded(impressions, each_micros, campaign, left_micros, now_ms)
    return Estimate(
        from_ms=from_ms,
        decisions=decisions,
        requests=requests,
        matching=matching,
        winnable=scale.figure(winnable),
        impressions=bounded,
        limited_by=limited_by,
        price_micros=_rounded_up(each_micros * UNITS) if placed else None,
    )


def wilson(count: float) -> tuple[float, float]:
    """The ends of the interval of a count, where few of many were counted."""
    center, spread = count + Z * Z / 2, Z * sqrt(count + Z * Z / 4)
    return max(0.0, center - spread), center + spread


def _known(hours: Sequence[Hour], now_ms: int) -> list[Hour]:
    """From the first hour on in which anything was asked for."""
    first = next((place for place, hour in enumerate(hours) if hour.requests or hour.sampled), len(hours))
    return [hour for hour in hours[first:] if hour.start_ms < now_ms]


def _would_tell_bids(hours: Sequence[Hour]) -> bool:
    rivals: Counter[int] = Counter()
    for hour in hours:
        rivals.update(hour.rivals)
    contested = sum(hour.contested for hour in hours)
    several = [count for count in rivals.values() if count >= RIVAL_SHARE_MIN * contested]
    return contested > 0 and len(several) < RIVALS_MIN


def _weights(hours: Sequence[Hour]) -> list[float]:
    weight = _weight([hour for hour in hours if not hour.full])
    return [_weight((hour,)) if hour.full else weight for hour in hours]


def _weight(hours: Sequence[Hour]) -> float:
    """For how many requests each of their decisions stands: at least for itself, as counts are written some seconds later."""
    sampled = sum(hour.sampled for hour in hours)
    return max(1.0, sum(hour.requests for hour in hours) / sampled) if sampled else 0.0


def _bounded(
    impressions: Figure, each_micros: float, campaign: Campaign, left_micros: int | None, now_ms: int
) -> tuple[Figure, Limit]:
    """By what the budgets of a day pay for, `each_micros` an impression."""
    paid = {
        limit: micros / each_micros
        for limit, micros in (
            (Limit.DAILY_BUDGET, campaign.budget_daily_micros),
            (Limit.TOTAL_BUDGET, _day_of_total(campaign, left_micros, now_ms)),
        )
        if micros is not None and each_micros
    }
    limit = min(paid, key=paid.__getitem__, default=Limit.REQUESTS)
    most = paid.get(limit, inf)
    if most >= impressions.estimate:
        limit = Limit.REQUESTS
    estimate, low, high = (
        min(end, most) for end in (impressions.estimate, impressions.low, impressions.high)
    )
    return Figure(round(estimate), floor(low), ceil(high)), limit


def _day_of_total(campaign: Campaign, left_micros: int | None, now_ms: int) -> float | None:
    """What is left is spread over the days left where the pace is even and there is an end; else it may go in one day."""
    if left_micros is None:
        return None
    left = max(0.0, float(left_micros))
    if campaign.pacing == "even" and campaign.ends_at_ms is not None:
        days = (campaign.ends_at_ms - max(now_ms, campaign.starts_at_ms)) / DAY_MS
        return left / max(1.0, days)
    return left


def _rounded_up(micros: float) -> int:
    """To PRICE_DIGITS digits: an average of few prices would be one of them."""
    if micros < 1:
        return 1
    step = int(10 ** max(0, floor(log10(micros)) + 1 - PRICE_DIGITS))
    return ceil(micros / step) * step
