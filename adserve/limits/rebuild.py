"""Fills the counters of a new epoch from the last checkpoint and the events since, while what needs no counts is served."""

import asyncio
import logging
from collections.abc import AsyncIterable, AsyncIterator, Callable
from functools import lru_cache
from typing import Protocol
from uuid import UUID

from adserve.domain.events import CONFIRMING, EventKind, Outcome
from adserve.limits.checkpoint import CheckpointUnreadable
from adserve.limits.counters import MemoryCounters
from adserve.limits.rules import RETENTION_MS, keys_counted

log = logging.getLogger(__name__)

OVERLAP_MS = 600_000
"""Events are read again from this long before a checkpoint: one received just before it may have committed after."""

AT_ONCE = 200
"""How many events are put back before requests have their turn: it takes a millisecond or two."""
PROGRESS_EVERY = 500_000
PROFILES_CACHED_MAX = 1 << 16

_keys = lru_cache(PROFILES_CACHED_MAX)(keys_counted)


class Counted(Protocol):
    """An impression, view, hide or report as the event log has it."""

    @property
    def ticket(self) -> UUID: ...
    @property
    def viewer(self) -> bytes: ...
    @property
    def ad(self) -> int: ...
    @property
    def campaign(self) -> int: ...
    @property
    def advertiser(self) -> int: ...
    @property
    def labels(self) -> tuple[str, ...]: ...
    @property
    def kind(self) -> EventKind: ...
    @property
    def outcome(self) -> Outcome: ...
    @property
    def received_at_ms(self) -> int: ...
    @property
    def expires_at_ms(self) -> int: ...
    @property
    def settled(self) -> bool:
        """Else it waits in a spool."""
        ...


class Checkpoints(Protocol):
    async def taken_at_ms(self) -> int | None:
        """When the newest whole one was taken, if there is one."""
        ...

    def parts(self) -> AsyncIterator[bytes]:
        """Of the newest whole one."""
        ...


class EventLog(Protocol):
    async def count_since(self, received_at_ms: int) -> int | None:
        """None where it would take too long to say."""
        ...

    def since(self, received_at_ms: int) -> AsyncIterator[Counted]:
        """In the order they were received."""
        ...


class Filling:
    """Fills the counters once. `detail` says how far that is; `wake` asks for a step at once, which nothing needs here."""

    def __init__(self, counters: MemoryCounters, checkpoints: Checkpoints, events: EventLog) -> None:
        self.counters = counters
        self._checkpoints = checkpoints
        self._events = events
        self.detail = "filling"
        self.wake = asyncio.Event()
        self.done = asyncio.Event()

    async def step(self, now_ms: int) -> None:
        """Returns when they are filled. One that failed is begun anew: putting back twice is harmless."""
        if self.done.is_set():
            return
        try:
            await self._fill(await self._checkpoints.taken_at_ms(), now_ms)
        except CheckpointUnreadable as error:
            log.warning("counters: %s: all events are read instead", error)
            await self._fill(None, now_ms)
        self.counters.filled = True
        self.done.set()

    def close(self) -> None:
        """There is nothing to close."""

    async def _fill(self, taken_at_ms: int | None, now_ms: int) -> None:
        since_ms = now_ms - RETENTION_MS if taken_at_ms is None else taken_at_ms - OVERLAP_MS
        parts = None if taken_at_ms is None else self._checkpoints.parts()
        expected = await self._events.count_since(since_ms)

        def progress(read: int) -> None:
            self.detail = f"filling, {so_many(read, expected)} events"
            if read % PROGRESS_EVERY == 0:
                log.info("counters: %s", self.detail)

        progress(0)
        read = await rebuild(self.counters, parts, self._events.since(since_ms), since_ms, progress)
        log.info("counters: %s viewers, %s events read", f"{len(self.counters):,}", f"{read:,}")


def so_many(read: int, expected: int | None) -> str:
    return f"{read:,}" if expected is None else f"{read:,} of {expected:,}"


async def rebuild(
    counters: MemoryCounters,
    checkpoint: AsyncIterable[bytes] | None,
    events: AsyncIterable[Counted],
    since_ms: int,
    progress: Callable[[int], None],
) -> int:
    """Answers how many events were read. `events` are those received since `since_ms`, in that order; repeating one is
    harmless."""
    if checkpoint is not None:
        await counters.load(checkpoint, since_ms)
    read = 0
    async for event in events:
        _restore(counters, event)
        read += 1
        if read % AT_ONCE == 0:
            progress(read)
            await asyncio.sleep(0)
    return read


def _restore(counters: MemoryCounters, event: Counted) -> None:
    if event.kind not in CONFIRMING:
        counters.restore_hide(event.viewer, event.advertiser, event.received_at_ms)
    elif event.outcome is not Outcome.LATE:
        counters.restore(
            event.viewer,
            event.ticket,
            event.outcome is not Outcome.OVER_CAP,
            event.received_at_ms,
            event.expires_at_ms,
            _keys(event.ad, event.campaign, event.advertiser, event.labels),
            event.settled,
        )
