"""A journal in memory, and broken ones, for tests of what stands before it."""

import asyncio
from collections.abc import Callable, Sequence
from uuid import UUID

from adserve.domain.events import Event, Outcome, Settled
from adserve.domain.ids import EventId
from adserve.domain.money import Money


class MemoryJournal:
    """Stores each key once. `trouble` may raise or wait before a batch is stored."""

    def __init__(self) -> None:
        self.stored: dict[tuple[UUID, str], Event] = {}
        self.quarantined: list[Event] = []
        self.batches: list[int] = []
        self.trouble: Callable[[Sequence[Event]], None] = lambda events: None
        self.takes_s = 0.0

    async def settle(self, events: Sequence[Event]) -> list[Settled]:
        self.trouble(events)
        await asyncio.sleep(self.takes_s)
        self.batches.append(len(events))
        return [self._store(event) for event in events]

    def _store(self, event: Event) -> Settled:
        first = self.stored.setdefault((event.ticket.ticket, event.kind), event)
        if first is not event:
            return Settled(first.event, Outcome.DUPLICATE, None)
        billed = event.outcome is Outcome.RECORDED
        money = Money(event.ticket.price_micros, event.ticket.currency) if billed else None
        return Settled(event.event, event.outcome, money)

    async def quarantine(self, event: Event, reason: str) -> EventId:
        self.quarantined.append(event)
        return event.event
