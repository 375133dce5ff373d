"""What a placement costs: second price against the runner-up of another advertiser in the same tier."""

from collections.abc import Sequence
from math import ceil

from msgspec import Struct

from adserve.domain.ads import Ad, Tier
from adserve.selection.state import CompiledAd

_WITHOUT_NOISE = 1 - 1e-12
"""Values are floats: what lies above a whole micro by their rounding alone must not cost the next one."""


class Contender(Struct, frozen=True, gc=False):
    """A ranked ad. `value_micros` is that of 1,000 impressions."""

    compiled: CompiledAd
    value_micros: float
    click_rate: float

    @property
    def ad(self) -> Ad:
        return self.compiled.ad

    @property
    def event_rate(self) -> float:
        """Billable events per impression."""
        told = self.compiled.event_rate
        return self.click_rate if told is None else told


def clearing_micros(winner: Contender, behind: Sequence[Contender], floor_micros: int) -> int:
    """Whole micros per billable event: rounded up, at least 1, never above the bid.

    `behind` are the contenders ranked after the winner, best first. A guaranteed ad pays its own price.
    """
    bid = winner.compiled.bid_micros
    if winner.compiled.candidate.tier == Tier.GUARANTEED:
        return bid
    runner_up_micros = next((other.value_micros for other in behind if _rivals(winner, other)), 0.0)
    to_beat_micros = max(float(floor_micros), runner_up_micros)
    events_per_thousand = 1_000.0 * winner.event_rate
    return min(bid, max(1, ceil(to_beat_micros / events_per_thousand * _WITHOUT_NOISE)))


def _rivals(winner: Contender, other: Contender) -> bool:
    mine, theirs = winner.compiled.candidate, other.compiled.candidate
    return theirs.tier == mine.tier and theirs.advertiser != mine.advertiser
