"""Whom a viewer does not want to see ads of: known from the event log alone, whatever becomes of the counters."""

from collections.abc import Sequence
from itertools import takewhile
from typing import Protocol

from adserve.limits.erased import Erased
from adserve.limits.rules import RETENTION_MS

HIDES_MAX = 300_000
"""How many hides are remembered here, about 400 bytes each; the oldest are forgotten first."""
OVERLAP_MS = 10_000
"""A hide received so long ago may have committed since the log was read last."""


class Hides:
    """Advertisers that were hidden or reported in the last RETENTION_MS, by the viewer's pseudonym for caps.

    Forgetting is `sweep`'s work, so that `of` costs a look into a dictionary: between sweeps a hide lasts longer.
    """

    def __init__(self, erased: Erased | None = None) -> None:
        self._erased = erased or Erased()
        self._moments: dict[tuple[bytes, int], int] = {}
        self._advertisers: dict[bytes, tuple[int, ...]] = {}

    def add(self, viewer: bytes, advertiser: int, at_ms: int) -> None:
        """Repeating one is harmless; the newest counts. Of an erased viewer none is taken that was read before."""
        if self._erased.covers(viewer, at_ms):
            return
        hide = viewer, advertiser
        if hide in self._moments:
            at_ms = max(at_ms, self._moments.pop(hide))
        else:
            self._advertisers[viewer] = (*self.of(viewer), advertiser)
        self._moments[hide] = at_ms
        if len(self._moments) > HIDES_MAX:
            self._forget(next(iter(self._moments)))

    def of(self, viewer: bytes) -> tuple[int, ...]:
        return self._advertisers.get(viewer, ())

    def viewers(self) -> list[bytes]:
        return list(self._advertisers)

    def erase(self, viewer: bytes) -> None:
        for advertiser in self.of(viewer):
            self._forget((viewer, advertiser))

    def sweep(self, now_ms: int) -> None:
        """They are in the order of time but for those that waited to be stored, which go a little later."""
        for hide, _ in list(
            takewhile(lambda known: now_ms - known[1] >= RETENTION_MS, self._moments.items())
        ):
            self._forget(hide)

    def _forget(self, hide: tuple[bytes, int]) -> None:
        viewer, advertiser = hide
        del self._moments[hide]
        left = tuple(other for other in self._advertisers[viewer] if other != advertiser)
        if left:
            self._advertisers[viewer] = left
        else:
            del self._advertisers[viewer]

    def __len__(self) -> int:
        return len(self._moments)


class HideLog(Protocol):
    async def hides(self, since_ms: int, most: int) -> Sequence[tuple[bytes, int, int]]:
        """The newest of those received from a moment on, oldest first: viewer, advertiser, moment of receipt."""
        ...


class HideReader:
    """Knows what the event log holds: all of it after the first step, and what other processes record from then on."""

    def __init__(self, hides: Hides, log: HideLog) -> None:
        self._hides = hides
        self._log = log
        self._read_until_ms: int | None = None

    async def step(self, now_ms: int) -> None:
        known_ms = self._read_until_ms
        since_ms = now_ms - RETENTION_MS if known_ms is None else known_ms - OVERLAP_MS
        for viewer, advertiser, at_ms in await self._log.hides(since_ms, HIDES_MAX):
            self._hides.add(viewer, advertiser, at_ms)
        self._read_until_ms = now_ms
        self._hides.sweep(now_ms)
