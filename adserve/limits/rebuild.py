"""Fills the counters of a new epoch from the last checkpoint and the events since."""

from collections.abc import AsyncIterable, Callable, Iterable
from typing import Protocol
from uuid import UUID

from adserve.domain.events import CONFIRMING, EventKind, Outcome
from adserve.limits.counters import MemoryCounters
from adserve.limits.rules import keys_counted

OVERLAP_MS = 600_000
"""Events are read again from this long before a checkpoint: one received just before it may have committed after."""

PROGRESS_EVERY = 100_000


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


async def rebuild(
    counters: MemoryCounters,
    checkpoint: Iterable[bytes],
    events: AsyncIterable[Counted],
    since_ms: int,
    progress: Callable[[str], None],
) -> int:
    """Answers how many events were read. `events` are those received since `since_ms`, in that order; repeating one is
    harmless."""
    counters.load(checkpoint, since_ms)
    read = 0
    async for event in events:
        _restore(counters, event)
        read += 1
        if read % PROGRESS_EVERY == 0:
            progress(f"counters: {read:,} events read")
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
            keys_counted(event.ad, event.campaign, event.advertiser, event.labels),
        )
