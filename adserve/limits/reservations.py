"""What counters are asked for a decision, and what they answer."""

from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

from msgspec import Struct

from adserve.limits.rules import Rule


class Candidate(NamedTuple):
    """What the counters need to know of a ranked ad."""

    advertiser: int
    tier: int
    keys: tuple[str, ...]
    rules: tuple[Rule, ...]


class Reservation(Struct, frozen=True, gc=False):
    """A ranked list and the tickets that wait for the open positions, in feed order.

    When it is to be `whole`, nothing is reserved unless there is an ad for every ticket, and a runner-up where the last
    one is not guaranteed: such an ad pays its own price. `memo` is given back with the grant when the same `request` of the viewer comes again.
    `assumed` is that of the past which the list was made for.
    """

    decision: UUID
    candidates: Sequence[Candidate]
    tickets: Sequence[UUID]
    expires_at_ms: int
    whole: bool = False
    request: str | None = None
    digest: bytes = b""
    memo: Any = None
    assumed: bytes | None = None


class Grant(Struct, frozen=True, gc=False):
    """Indexes into the ranked list: `reserved` in position order, `runner_up` the next admissible ad of another
    advertiser in the last reserved one's tier, `capped` those that a rule forbade, with that rule."""

    reserved: tuple[int, ...]
    runner_up: int | None
    capped: tuple[tuple[int, Rule], ...]

    @property
    def places(self) -> tuple[int, ...]:
        """Of those reserved and, last, of the runner-up."""
        return self.reserved if self.runner_up is None else (*self.reserved, self.runner_up)


class Earlier(Struct, frozen=True, gc=False):
    """The answer that this viewer's `request` got before."""

    digest: bytes
    grant: Grant
    memo: Any


class Past(Struct, frozen=True, gc=False):
    """What a decision may know of a viewer: confirmed impressions of late by campaign's key and of ALL, and an
    earlier answer to its request. With `assumed` it was so when the counters were asked last: whether it still is, `reserve` says."""

    exposures: dict[str, int]
    earlier: Earlier | None
    assumed: bytes | None = None


class PastDiffers(Exception):
    """The viewer's past is not the assumed one, or the request was answered meanwhile: nothing was reserved."""

    def __init__(self, past: Past) -> None:
        self.past = past
