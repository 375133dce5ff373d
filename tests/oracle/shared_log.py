"""The unreliable log, with the pending events that shared counters need, and epochs."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import groupby
from typing import Any
from uuid import UUID

from logs import UnreliableLog
from msgspec.structs import replace

from adserve.domain.events import Event, Outcome, Settled
from adserve.metering.errors import JournalOutdated
from adserve.metering.pending import Judge
from adserve.store.journal import Counted
from adserve.store.wire import CONFIRMED, REFUSED, Shown, event_of


class SharedLog(UnreliableLog):
    def __init__(self, chance: random.Random, epochs: "Epochs") -> None:
        super().__init__(chance)
        self._epochs = epochs
        self._pending: dict[tuple[UUID, str], Event] = {}
        self._turn = asyncio.Lock()
        self.kept_pending = 0
        self.unanswered = 0

    async def settle(self, events: Sequence[Event]) -> list[Settled]:
        waits = [self._waits(event) for event in events]
        rated = [event for event, wait in zip(events, waits, strict=True) if not wait]
        settled = iter(await super().settle(rated))
        return [
            self._keep(event) if wait else next(settled) for event, wait in zip(events, waits, strict=True)
        ]

    async def settle_pending(self, judge: Judge, most: int) -> list[tuple[Event, Settled]] | None:
        if self._turn.locked():
            return None
        async with self._turn:
            events = sorted(self._pending.values(), key=lambda event: event.received_at_ms)[:most]
            judged = await judge(events)
            if any(map(self._outdated, judged)):
                raise JournalOutdated("judged in another epoch")
            for event in judged:
                del self._pending[event.ticket.ticket, event.kind]
            return [(event, self._store(event)) for event in judged]

    async def count_pending(self) -> int:
        return len(self._pending)

    async def quarantine_pending(self, _event: Event, reason: str) -> None:
        raise AssertionError(reason)

    async def shown_since(self, received_at_ms: int) -> AsyncIterator[Shown]:
        later = [event async for event in self.since(received_at_ms) if event.outcome is not Outcome.LATE]
        for (viewer, labels), events in groupby(sorted(later, key=_viewer_and_labels), _viewer_and_labels):
            moments, packed = zip(*[(event.received_at_ms, _packed(event)) for event in events], strict=True)
            yield Shown(viewer, labels, b"".join(packed), max(moments))

    async def count_since(self, received_at_ms: int) -> int:
        return len(self.stored)

    async def hides(self, since_ms: int, most: int) -> list[tuple[bytes, int, int]]:
        return []

    def _store(self, event: Event) -> Settled:
        if self._outdated(event):
            return self._keep(replace(event, outcome=Outcome.ACCEPTED, counted_in=None))
        return super()._store(event)

    def _outdated(self, event: Event) -> bool:
        return event.counted_in is not None and event.counted_in < self._epochs.number

    def _waits(self, event: Event) -> bool:
        key = event.ticket.ticket, event.kind
        return key in self._pending or (event.outcome is Outcome.ACCEPTED and key not in self._first)

    def _keep(self, event: Event) -> Settled:
        settled = self._first.get((event.ticket.ticket, event.kind))
        if settled is not None:  # by another batch, meanwhile
            return Settled(settled, Outcome.DUPLICATE, None)
        first = self._pending.setdefault((event.ticket.ticket, event.kind), event)
        self.kept_pending += first is event
        if first is event:
            return Settled(first.event, Outcome.ACCEPTED, None)
        return Settled(first.event, Outcome.DUPLICATE, None, waits=True)


def _viewer_and_labels(event: Counted) -> tuple[bytes, tuple[str, ...]]:
    return event.viewer, event.labels


def _packed(event: Counted) -> bytes:
    state = REFUSED if event.outcome is Outcome.OVER_CAP else CONFIRMED
    return event_of(event.ad, event.campaign, event.advertiser, event.ticket, state, event.received_at_ms)


class Epochs:
    def __init__(self) -> None:
        self.number = 0
        self._turn = asyncio.Lock()

    async def newest(self) -> int:
        return self.number

    async def open_epoch(self, now_ms: int) -> int:
        self.number += 1
        return self.number

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[Any]:
        if self._turn.locked():
            yield None
            return
        async with self._turn:
            yield self
