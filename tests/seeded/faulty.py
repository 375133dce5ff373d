"""The ledger behind a network that delays, refuses and forgets to answer: what the recorder and the keeper speak to."""

import asyncio
import random
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar
from uuid import UUID

from ledger_model import Books

from adserve.domain.events import Event, Outcome, Settled
from adserve.domain.ids import EventId
from adserve.limits.pacing import Asked, Granted, Unspent, Used
from adserve.metering.errors import JournalAway, JournalContended, JournalRejected
from adserve.store import spool
from adserve.store.journal import Counted
from adserve.store.spool import Spool

T = TypeVar("T")

HANGS_S = 8.0
"""Longer than anyone waits for a batch."""
READ_WITHIN_S = 3.0
SYNCED_WITHIN_S = 0.01
POISON_VIEW_MS = -1
"""No column takes an event with that."""


class Away(Exception):
    """What the keeper's store raises."""


class Network:
    """`share` of the calls go wrong, in one of five ways. A statement whose caller has gone may still commit, also when that was a
    process that died: until the next one has ended it."""

    def __init__(self, chance: random.Random, share: float, latency_s: float) -> None:
        self.share = share
        self._latency_s = latency_s
        self._chance = chance
        self._late: list[asyncio.TimerHandle] = []
        self._orphans: list[asyncio.TimerHandle] = []

    def orphan(self) -> None:
        """The process has died: nobody waits for its statements any more."""
        self._orphans += self._late
        self._late = []

    def end_others(self) -> None:
        """What those that died left running is over."""
        for statement in self._orphans:
            statement.cancel()
        self._orphans.clear()

    async def call(self, away: type[Exception], statement: Callable[[], T], contended: bool = False) -> T:
        chance = self._chance
        fate = chance.randrange(5) if chance.random() < self.share else -1
        try:
            await asyncio.sleep(chance.random() * self._latency_s)
        except asyncio.CancelledError:  # it was sent
            self._run_late(statement)
            raise
        match fate:
            case 0:
                raise away("not connected")
            case 1 if contended:
                raise JournalContended("another batch was first")
            case 2:
                await asyncio.sleep(HANGS_S)
                raise away("no answer")
            case 3:  # it commits, however long its caller waits
                self._run_late(statement)
                await asyncio.sleep(2 * HANGS_S)
                raise away("no answer")
        result = statement()
        if fate == 4:
            raise away("the answer was lost")
        await asyncio.sleep(chance.random() * self._latency_s)
        return result

    async def dawdle(self) -> None:
        await asyncio.sleep(self._chance.random() * READ_WITHIN_S)

    def _run_late(self, statement: Callable[[], object]) -> None:
        late_s = self._chance.random() * HANGS_S
        self._late.append(asyncio.get_running_loop().call_later(late_s, _quietly(statement)))


def _quietly(statement: Callable[[], object]) -> Callable[[], None]:
    def run() -> None:
        with suppress(JournalRejected):
            statement()

    return run


class FaultyJournal:
    """`committed` hears of every batch that has."""

    def __init__(self, books: Books, network: Network, committed: Callable[[list[Settled]], None]) -> None:
        self.books = books
        self.quarantined: dict[tuple[UUID, str], Event] = {}
        self._network = network
        self._committed = committed

    async def settle(self, events: Sequence[Event]) -> list[Settled]:
        return await self._network.call(JournalAway, lambda: self._settle(events), contended=True)

    def _settle(self, events: Sequence[Event]) -> list[Settled]:
        if any(event.view_ms == POISON_VIEW_MS and event.outcome is not Outcome.ACCEPTED for event in events):
            raise JournalRejected("view_ms")
        rated = iter(self.books.settle([event for event in events if event.outcome is not Outcome.ACCEPTED]))
        kept = iter([self.books.keep_pending(event) for event in events if event.outcome is Outcome.ACCEPTED])
        settled = [next(kept if event.outcome is Outcome.ACCEPTED else rated) for event in events]
        self._committed(settled)
        return settled

    async def quarantine(self, event: Event, _reason: str) -> EventId:
        key = (event.ticket.ticket, event.kind)
        return await self._network.call(
            JournalAway, lambda: self.quarantined.setdefault(key, event).event, contended=True
        )

    async def settle_pending(
        self, judge: Callable[[Sequence[Event]], Awaitable[list[Event]]], most: int
    ) -> list[tuple[Event, Settled]] | None:
        """While it judges, nobody else comes between: it holds the turn's lock."""
        waiting = sorted(self.books.pending.values(), key=lambda event: event.received_at_ms)[:most]
        judged = await judge(waiting) if waiting else []

        def move() -> list[tuple[Event, Settled]]:
            if any(event.view_ms == POISON_VIEW_MS for event in judged):
                raise JournalRejected("view_ms")
            if any((event.ticket.ticket, event.kind) not in self.books.pending for event in judged):
                raise JournalRejected("another process has moved them")
            for event in judged:
                self.books.pending.pop((event.ticket.ticket, event.kind))
            settled = self.books.settle(judged)
            self._committed(settled)
            return list(zip(judged, settled, strict=True))

        return await self._network.call(JournalAway, move) if judged else []

    async def quarantine_pending(self, event: Event, _reason: str) -> None:
        key = (event.ticket.ticket, event.kind)
        if self.books.pending.pop(key, None) is not None:
            self.quarantined.setdefault(key, event)

    async def count_pending(self) -> int:
        return len(self.books.pending)

    async def count_since(self, received_at_ms: int) -> int:
        return sum(stored.event.received_at_ms >= received_at_ms for stored in self.books.events.values())

    async def since(self, received_at_ms: int) -> AsyncIterator[Counted]:
        """As of one moment, while it takes its time."""
        await self._network.dawdle()
        rows = sorted(self.books.events.values(), key=lambda stored: stored.event.received_at_ms)
        for event, outcome, _ in rows:
            if event.received_at_ms >= received_at_ms:
                ticket = event.ticket
                yield Counted(
                    ticket.ticket, ticket.viewer_cap, ticket.ad, ticket.campaign, ticket.advertiser, ticket.labels,
                    event.kind, outcome, event.received_at_ms, ticket.expires_at_ms,
                )  # fmt: skip  # laid out as rows
        await self._network.dawdle()


class DiskFull(sqlite3.OperationalError):
    sqlite_errorcode = sqlite3.SQLITE_FULL


class FaultySpool(Spool):
    """On a disk that outlives every process, and now and then takes nothing. What a process had begun as it died is there or is not."""

    def __init__(self, chance: random.Random, network: Network) -> None:
        connection = sqlite3.connect(":memory:", isolation_level=None)
        for statement in (spool.SQL.create_spooled, spool.SQL.create_by_time, spool.SQL.create_spool):
            connection.execute(statement)
        connection.execute(spool.SQL.name_spool, (b"s" * 16,))
        super().__init__(Path(), connection)
        self._chance = chance
        self._network = network

    @property
    def count(self) -> int:
        events: int = self._connection.execute(spool.SQL.waiting).fetchone()[0]
        return events

    @contextmanager
    def turn(self) -> Iterator[bool]:
        yield True

    async def _in_thread(self, work: Callable[..., T], *arguments: object) -> T:
        chance = self._chance
        try:
            await asyncio.sleep(chance.random() * SYNCED_WITHIN_S)
        except asyncio.CancelledError:
            if chance.random() < 0.5:
                work(*arguments)
            raise
        if chance.random() < self._network.share / 5:
            raise DiskFull
        return work(*arguments)


class Nobody:
    """Who would hear of spools: no lease is closed here that they may yet charge."""

    async def note(self, *_: object) -> None: ...

    async def put_aside(self, *_: object) -> None:
        raise AssertionError("every row was written by us")


class FaultyLedger:
    """What the keeper asks for unpaced campaigns; a process's own."""

    def __init__(self, books: Books, network: Network) -> None:
        self._books = books
        self._network = network

    async def take(
        self, asked: Sequence[Asked], replica: UUID, tickets_until_ms: int, at_ms: int
    ) -> list[Granted]:
        ordered = sorted(asked, key=lambda one: one.campaign)
        return await self._network.call(
            Away, lambda: [self._books.take(one, replica, tickets_until_ms, at_ms) for one in ordered]
        )

    async def drawable(self, replica: UUID) -> dict[int, int]:
        return await self._network.call(
            Away,
            lambda: {
                number: lease.captured_micros
                for number, lease in self._books.leases.items()
                if lease.replica == replica and not lease.frozen
            },
        )

    async def captured(self, replica: UUID, drawn: Sequence[int], retired: Sequence[int]) -> dict[int, int]:
        asked, drawing = {*drawn, *retired}, set(drawn)
        return await self._network.call(
            Away,
            lambda: {
                number: lease.captured_micros
                for number, lease in self._books.leases.items()
                if number in asked
                and lease.replica == replica
                and (not lease.frozen or (not lease.closed and number not in drawing))
            },
        )

    async def newest_funds(self) -> int:
        return 1

    async def extend(self, until_ms: Mapping[int, int]) -> None:
        def extend() -> None:
            for number, moment_ms in until_ms.items():
                self._books.leases[number].tickets_until_ms = moment_ms

        await self._network.call(Away, extend)

    async def freeze(self, closes_at_ms: Mapping[int, int], _at_ms: int) -> None:
        moments = dict(closes_at_ms)
        await self._network.call(Away, lambda: self._books.freeze(moments))

    async def freeze_lost(self, _replica: UUID, heard_since_ms: int, _closes_ms: int, at_ms: int) -> None:
        await self._network.call(Away, lambda: self._books.freeze_lost(heard_since_ms, at_ms))

    async def close_due(self, at_ms: int) -> None:
        await self._network.call(Away, lambda: self._books.close_due(at_ms))

    async def forecast(self, _unspent: Sequence[Unspent], _replica: UUID, _at_ms: int) -> list[Used]:
        return []

    async def add_traffic(self, _take: Callable[[], Mapping[tuple[int, str], int]]) -> None: ...

    async def traffic(self, _since_quarter: int) -> Iterable[tuple[int, str, int]]:
        return []

    async def forget_traffic(self, _before_quarter: int, _at_ms: int) -> None: ...
