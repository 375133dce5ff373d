"""Gets one batch into the ledger, whatever is wrong with one of its events.

A batch that lost against another is tried again. One that the ledger rejects is halved until the bad event
stands alone; that one is put in quarantine, where it is durable, and answered `accepted`. For a day without a partition
it waits, as if the ledger were away, unless it is late: then nothing is stored.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Protocol

from adserve.domain.events import Event, Outcome, Settled
from adserve.domain.ids import EventId
from adserve.metering.errors import (
    DayMissing,
    JournalAway,
    JournalContended,
    JournalRejected,
    RecorderUnavailable,
)

log = logging.getLogger(__name__)

ATTEMPTS_MAX = 6
BACKOFF_MS = 5
SETTLE_TIMEOUT_S = 5.0
"""How long a batch may take with all its attempts before its callers are told to send it again."""


class Journal(Protocol):
    """Raises JournalContended, JournalRejected or JournalAway, and nothing else."""

    async def settle(self, events: Sequence[Event]) -> list[Settled]:
        """Commits all of the events or none, and answers in their order."""
        ...

    async def quarantine(self, event: Event, reason: str) -> EventId:
        """Commits an event as it is; answers the id under which that ticket and kind already waits there."""
        ...


async def settle(journal: Journal, events: Sequence[Event], timeout_s: float | None = None) -> list[Settled]:
    """Answers in the order of the events, each durable. Raises RecorderUnavailable when some may not be."""
    try:
        async with asyncio.timeout(timeout_s or SETTLE_TIMEOUT_S):
            return await _settle(journal, events)
    except TimeoutError:
        raise RecorderUnavailable("the database takes too long") from None
    except (JournalAway, JournalContended) as error:
        raise RecorderUnavailable(str(error)) from error


async def _settle(journal: Journal, events: Sequence[Event]) -> list[Settled]:
    try:
        return await _with_patience(journal, events)
    except JournalRejected as error:
        if len(events) == 1:
            return [await _alone(journal, events[0], error)]
    half = len(events) // 2
    return await _settle(journal, events[:half]) + await _settle(journal, events[half:])


async def _with_patience(journal: Journal, events: Sequence[Event]) -> list[Settled]:
    for attempt in range(ATTEMPTS_MAX - 1):
        try:
            return await journal.settle(events)
        except JournalContended:
            await asyncio.sleep(BACKOFF_MS * 2**attempt / 1_000)
    return await journal.settle(events)


async def _alone(journal: Journal, event: Event, error: JournalRejected) -> Settled:
    """What becomes of the event for which the ledger rejects a batch."""
    if not isinstance(error, DayMissing):
        return await _put_aside(journal, event, str(error))
    if event.outcome is Outcome.LATE:  # its day was retired, or came before the ledger
        return Settled(event.event, Outcome.LATE, None)
    raise JournalAway(f"partitions are not made ahead: {error}") from error


async def _put_aside(journal: Journal, event: Event, reason: str) -> Settled:
    log.error("event put in quarantine", extra={"event": str(event.event), "reason": reason})
    try:
        kept = await journal.quarantine(event, reason)
    except JournalRejected as error:
        raise RecorderUnavailable(f"not even quarantine takes the event: {error}") from error
    return Settled(kept, Outcome.ACCEPTED, None)
