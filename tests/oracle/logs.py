"""An event log in memory that is as slow and as unreliable as one behind a network."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from uuid import UUID

from adserve.domain.events import Event, Outcome, Settled
from adserve.domain.ids import EventId
from adserve.domain.money import Money
from adserve.metering.errors import JournalAway
from adserve.store.journal import Counted

TURNS_MAX = 4
AWAY = 0.005


class UnreliableLog:
    """Batches overtake each other; some are lost, of some only the answer."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self.stored: list[Counted] = []
        self._first: dict[tuple[UUID, str], EventId] = {}

    async def settle(self, events: Sequence[Event]) -> list[Settled]:
        for _ in range(self._chance.randrange(TURNS_MAX)):
            await asyncio.sleep(0)
        if self._chance.random() < AWAY:
            raise JournalAway("before it was stored")
        settled = [self._store(event) for event in events]
        if self._chance.random() < AWAY:
            raise JournalAway("after it was stored")
        return settled

    async def quarantine(self, event: Event, reason: str) -> EventId:
        raise AssertionError(reason)

    def _store(self, event: Event) -> Settled:
        ticket = event.ticket
        if event.outcome is Outcome.ACCEPTED:  # it waits for the counters to judge it
            return Settled(event.event, Outcome.ACCEPTED, None)
        first = self._first.setdefault((ticket.ticket, event.kind), event.event)
        if first != event.event:
            return Settled(first, Outcome.DUPLICATE, None)
        self.stored.append(
            Counted(
                ticket.ticket, ticket.viewer_cap, ticket.ad, ticket.campaign, ticket.advertiser, ticket.labels,
                event.kind, event.outcome, event.received_at_ms, ticket.expires_at_ms,
            )
        )  # fmt: skip  # laid out as rows
        billed = event.outcome is Outcome.RECORDED
        return Settled(first, event.outcome, Money(ticket.price_micros, ticket.currency) if billed else None)

    async def since(self, received_at_ms: int) -> AsyncIterator[Counted]:
        later = [event for event in self.stored if event.received_at_ms >= received_at_ms]
        for event in sorted(later, key=lambda event: event.received_at_ms):
            yield event
