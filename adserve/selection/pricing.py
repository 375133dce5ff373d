"""What a placement costs: second price against the runner-up of another advertiser in the same tier."""

from collections.abc import Sequence
from math import ceil

from msgspec import Struct

from adserve.domain.ads import Ad
from adserve.selection.compiled import CompiledAd

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


def clearing_micros(winner: Contender, behind: Sequence[Contender], floor_micros: int) -> int:
    """Whole micros per billable event: rounded up, at least 1, never above the bid.

    `behind` are the contenders ranked after the winner, best first. A guaranteed ad pays its own price. What an
    impression is worth grows with the bid alone, so the price is the part of the bid that is worth what is to be beaten.
    """
    compiled = winner.compiled
    if compiled.guaranteed:
        return compiled.bid_micros
    rival = rival_of(winner, behind)
    to_beat_micros = floor_micros if rival is None else max(floor_micros, rival.value_micros)
    price = ceil(compiled.bid_micros * to_beat_micros / winner.value_micros * _WITHOUT_NOISE)
    return min(compiled.bid_micros, max(1, price))


def rival_of(winner: Contender, behind: Sequence[Contender]) -> Contender | None:
    """The first behind it that bids against it: of another advertiser, and not guaranteed."""
    advertiser = winner.compiled.candidate.advertiser
    for other in behind:
        rival = other.compiled
        if rival.candidate.advertiser != advertiser and not rival.guaranteed:
            return other
    return None
