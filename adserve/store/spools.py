"""What PostgreSQL knows of the machines' spools; and the log of events as PostgreSQL and this machine's spool have it."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from uuid import UUID

import asyncpg

from adserve.domain.events import CONFIRMING, Outcome
from adserve.domain.tickets import Ticket
from adserve.domain.time import from_ms
from adserve.metering.errors import JournalAway
from adserve.metering.spooled import Row
from adserve.store.errors import AWAY
from adserve.store.journal import Counted, Journal, Kept
from adserve.store.spool import Spool
from adserve.store.statements import load
from adserve.store.wire import DOUBTED, HIDDEN, REFUSED, Shown, event_of

SQL = load("spools")

TIMEOUT_S = 2.0


class Spools:
    """Needs a pool of adserve_recorder. Raises JournalAway."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def note(self, spool: UUID, settled_until_ms: int, at_ms: int) -> None:
        await self._execute(SQL.note, spool, from_ms(settled_until_ms), from_ms(at_ms))

    async def forget(self, spool: UUID) -> None:
        await self._execute(SQL.forget, spool)

    async def put_aside(self, row: Row, reason: str, at_ms: int) -> None:
        await self._execute(SQL.put_aside, row.ticket, row.kind, row.id, row.raw, reason, from_ms(at_ms))

    async def _execute(self, statement: str, *values: object) -> None:
        try:
            async with self._pool.acquire(timeout=TIMEOUT_S) as connection:
                await connection.execute(statement, *values, timeout=TIMEOUT_S)
        except (*AWAY, asyncpg.PostgresError) as error:
            raise JournalAway(f"the database: {error or type(error).__name__}") from error


class EventLog:
    """All events that were acknowledged here, wherever they are. An event on its way from one to the other is in both: the
    spool is read first, so that none is missed."""

    def __init__(self, journal: Journal, spool: Spool) -> None:
        self.journal = journal
        self.spool = spool

    async def of_ticket(self, ticket: Ticket) -> list[Kept]:
        """One of each kind, in the order they came. While PostgreSQL is away: those in the spool, or JournalAway if none is."""
        spooled = {kept.kind: kept for kept in await self.spool.of_ticket(ticket)}
        try:
            async with asyncio.timeout(TIMEOUT_S):
                settled = {kept.kind: kept for kept in await self.journal.of_ticket(ticket)}
        except (JournalAway, TimeoutError) as error:
            if not spooled:
                raise JournalAway(str(error) or "the database takes too long") from error
            settled = {}
        return sorted((spooled | settled).values(), key=lambda kept: kept.event)

    async def count_since(self, received_at_ms: int) -> int | None:
        """None where the journal cannot say: it may take longer than any statement but those that read it."""
        waiting = await self.spool.waiting()
        try:
            return waiting.events + await self.journal.count_since(received_at_ms)
        except JournalAway:
            return None

    async def since(self, received_at_ms: int) -> AsyncIterator[Counted]:
        """What has been counted from a moment on, that of the spool first."""
        async for counted in self.spool.counted():
            yield counted
        async for counted in self.journal.since(received_at_ms):
            yield counted

    async def shown_since(self, received_at_ms: int) -> AsyncIterator[Shown]:
        """The same by viewer, one after the other."""
        waiting: defaultdict[bytes, list[Shown]] = defaultdict(list)
        async for counted in self.spool.counted():
            if counted.outcome is not Outcome.LATE or counted.kind not in CONFIRMING:
                waiting[counted.viewer].append(_shown(counted))
        async for shown in self.journal.shown_since(received_at_ms):
            for one in waiting.pop(shown.viewer, ()):
                yield one
            yield shown
        for rest in waiting.values():
            for one in rest:
                yield one

    async def hides(self, since_ms: int, most: int) -> list[tuple[bytes, int, int]]:
        """The newest hides and reports from a moment on, oldest first: viewer, advertiser, moment of receipt."""
        spooled = await self.spool.hides(since_ms)
        settled = await self.journal.hides(since_ms, most)
        return sorted([*settled, *spooled], key=lambda hide: hide[2])[-most:]


def _shown(event: Counted) -> Shown:
    at_ms = event.received_at_ms
    if event.kind not in CONFIRMING:
        state = HIDDEN
    elif event.outcome is Outcome.OVER_CAP:
        state = REFUSED
    else:  # it is to be judged again, and the same may be stored with a later moment before that
        state, at_ms = DOUBTED, event.expires_at_ms
    packed = event_of(event.ad, event.campaign, event.advertiser, event.ticket, state, at_ms)
    return Shown(event.viewer, event.labels, packed, event.received_at_ms)
