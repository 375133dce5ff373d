"""Erases viewers: from what is stored, from the counters, and from the memory of every process.

Nothing of money is touched: events and postings name no viewer. Every step may be repeated, so one that was cut short is begun anew.
"""

from collections.abc import Awaitable, Callable, Sequence, Set
from contextlib import AbstractAsyncContextManager
from datetime import date
from typing import NamedTuple, Protocol
from uuid import UUID

from adserve.domain.time import HOUR_MS, SECOND_MS
from adserve.limits.erased import NOT_YET_MS, Erased, tombstone_of
from adserve.limits.hides import Hides

PERIOD_S = 1.0
IN_FLIGHT_MS = 120 * SECOND_MS
"""How long an erasure waits before it begins: every process knows of it by then, and no transaction of before is still to commit."""
OVERLAP_MS = 60 * SECOND_MS
"""Erasures that ended so long ago may have been committed since they were read last."""


class Erasure(NamedTuple):
    """`viewer` is the pseudonym for caps, known while the erasure goes on; then there is the moment of its end, `cut_ms`."""

    id: UUID
    tombstone: bytes
    viewer: bytes | None
    asked_ms: int
    cut_ms: int | None


class Store(Protocol):
    async def changed(self, since_ms: int) -> list[Erasure]: ...

    def turn(self) -> AbstractAsyncContextManager[bool]: ...

    async def days(self) -> Sequence[date]: ...

    async def forget_maps(self, day: date, viewers: Sequence[bytes]) -> None: ...

    async def forget_decisions(self, day: date, viewers: Sequence[bytes]) -> None: ...

    async def strip_waiting(self, viewer: bytes) -> None: ...

    async def finish(self, ids: Sequence[UUID], now_ms: int) -> None: ...


class Outcomes(Protocol):
    async def erase(self, viewers: Sequence[bytes]) -> None: ...


class Counters(Protocol):
    @property
    def filled(self) -> bool: ...

    async def erase(self, viewer: bytes) -> None:
        """May raise CountersAway, and TimeoutError."""
        ...


class Keeper(Protocol):
    async def erase(self, viewer: bytes) -> None:
        """The viewer's keys are gone from what this process keeps, if not the events."""
        ...


class Erasing:
    """`save_counts` replaces what the counters wrote down of themselves; `keepers` are what else this process has of viewers. `waiting` is how
    many erasures go on."""

    def __init__(
        self,
        store: Store,
        erased: Erased,
        hides: Hides,
        counters: Counters,
        save_counts: Callable[[int], Awaitable[None]],
        keepers: Sequence[Keeper],
        outcomes: Outcomes,
    ) -> None:
        self._store = store
        self._erased = erased
        self._hides = hides
        self._counters = counters
        self._save_counts = save_counts
        self._keepers = keepers
        self._outcomes = outcomes
        self._known: dict[bytes, Erasure] = {}
        self._read_ms = self._read_all_ms = 0

    @property
    def waiting(self) -> int:
        return len(self._going_on())

    def age_ms(self, now_ms: int) -> int:
        """How long the oldest has taken so far."""
        return max((now_ms - erasure.asked_ms for erasure in self._going_on().values()), default=0)

    async def step(self, now_ms: int) -> None:
        """Learns what there is to forget, forgets it here, and erases what is ready, if it is this process's turn."""
        await self._learn(now_ms)
        going_on = self._going_on()
        for viewer in going_on:
            self._hides.erase(viewer)
            for keeper in self._keepers:
                await keeper.erase(viewer)
        ready = {
            viewer: erasure.id
            for viewer, erasure in going_on.items()
            if now_ms - erasure.asked_ms >= IN_FLIGHT_MS
        }
        if ready and self._counters.filled:  # else a checkpoint may yet bring them back
            async with self._store.turn() as ours:
                if ours:
                    await self._erase(list(ready), now_ms)
                    await self._store.finish(list(ready.values()), now_ms)
            await self._learn(now_ms)

    def _going_on(self) -> dict[bytes, Erasure]:
        return {erasure.viewer: erasure for erasure in self._known.values() if erasure.viewer is not None}

    async def _learn(self, now_ms: int) -> None:
        whole = now_ms - self._read_all_ms >= HOUR_MS
        read = await self._store.changed(0 if whole else self._read_ms - OVERLAP_MS)
        seen = {erasure.id for erasure in self._known.values()}
        self._known = {} if whole else self._known
        self._known |= {erasure.tombstone: erasure for erasure in read}
        self._erased.learn(
            {
                tombstone: NOT_YET_MS if erasure.cut_ms is None else erasure.cut_ms
                for tombstone, erasure in self._known.items()
            }
        )
        self._read_ms, self._read_all_ms = now_ms, now_ms if whole else self._read_all_ms
        self._forget_missed({each.tombstone for each in read if each.viewer is None and each.id not in seen})

    def _forget_missed(self, tombstones: Set[bytes]) -> None:
        """Those that ended while this process could not hear of them."""
        if tombstones:
            for viewer in self._hides.viewers():
                if tombstone_of(viewer) in tombstones:
                    self._hides.erase(viewer)

    async def _erase(self, viewers: Sequence[bytes], now_ms: int) -> None:
        for day in await self._store.days():
            await self._store.forget_maps(day, viewers)
            await self._store.forget_decisions(day, viewers)
        await self._outcomes.erase(viewers)
        for viewer in viewers:
            await self._store.strip_waiting(viewer)
            await self._counters.erase(viewer)
        await self._save_counts(now_ms)
