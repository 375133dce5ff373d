"""Where events are written for good, and read again by ticket or by time."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, time, timedelta
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg
import msgspec

from adserve.domain.events import ACCEPTED, DUPLICATE, LATE, RECORDED, Event, EventKind, Outcome, Settled
from adserve.domain.ids import EventId
from adserve.domain.money import Money
from adserve.domain.tickets import Ticket
from adserve.domain.time import day_of, from_ms, to_ms
from adserve.domain.traffic import NOWHERE
from adserve.metering.errors import (
    DayMissing,
    JournalAway,
    JournalContended,
    JournalOutdated,
    JournalRejected,
)
from adserve.store.errors import AWAY
from adserve.store.statements import load
from adserve.store.wire import Shown

SQL = load("journal")

ACQUIRE_TIMEOUT_S = 2.0
PAGE_ROWS = 1_000
SORTED_WITHIN_S = 600.0

Connection = Any
"""asyncpg's own, or the pool's stand-in for it."""

_CONTENDED = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError, asyncpg.LockNotAvailableError)
"""To the driver the last is of the kind that tells of a lost epoch."""

_decode_event = msgspec.msgpack.Decoder(Event).decode


class Kept(NamedTuple):
    """An event as the ticket's bearer may see it. `billed` is None where nothing is rated yet or charged."""

    event: EventId
    kind: EventKind
    outcome: Outcome
    billed: Money | None


class Counted(NamedTuple):
    """What the counters are rebuilt from: an impression, view, hide or report with its viewer. What is not `settled` waits in a spool."""

    ticket: UUID
    viewer: bytes
    ad: int
    campaign: int
    advertiser: int
    labels: tuple[str, ...]
    kind: EventKind
    outcome: Outcome
    received_at_ms: int
    expires_at_ms: int
    settled: bool = True


class Journal:
    """Needs a pool of adserve_recorder."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self._open_from_ms = 0

    async def learn_closed_days(self) -> None:
        """The database knows of them by itself, as long as their partitions are there."""
        closed = await self._pool.fetchval(SQL.closed_day)
        if closed is not None:
            self._open_from_ms = to_ms(datetime.combine(closed + timedelta(days=1), time(), UTC))

    async def settle(self, events: Sequence[Event]) -> list[Settled]:
        """Commits all or none, and answers in order. Raises the journal errors of metering, and no others.

        What is only `accepted` is kept among the pending events, and so is all that was counted when some of it was
        counted by counters that have lost something since. What is of a closed day is `late`, and not stored.
        """
        if any(event.ticket.issued_at_ms < self._open_from_ms for event in events):
            timely = [event for event in events if event.ticket.issued_at_ms >= self._open_from_ms]
            answers = iter(await self._settle_open(timely) if timely else [])
            return [
                next(answers)
                if event.ticket.issued_at_ms >= self._open_from_ms
                else Settled(event.event, LATE, None)
                for event in events
            ]
        return await self._settle_open(events)

    async def _settle_open(self, events: Sequence[Event]) -> list[Settled]:
        try:
            return await self._settle(events)
        except JournalOutdated:
            return await self._settle([_to_be_judged(event) for event in events])

    async def _settle(self, events: Sequence[Event]) -> list[Settled]:
        waiting = [event for event in events if event.outcome is ACCEPTED]
        rated = [event for event in events if event.outcome is not ACCEPTED] if waiting else events
        with _translated_errors():
            async with self._lent() as connection:
                if not waiting:
                    return await _settle_rated(connection, rated)
                async with _transaction(connection):
                    settled = iter(await _settle_rated(connection, rated) if rated else [])
                    kept = iter(await _keep_pending(connection, waiting))
        return [next(kept if event.outcome is ACCEPTED else settled) for event in events]

    @asynccontextmanager
    async def _lent(self) -> AsyncIterator[Connection]:
        """Of a connection whose borrower gave up nothing is known: it ends at once, or its return would wait for the server."""
        async with self._pool.acquire(timeout=ACQUIRE_TIMEOUT_S) as connection:
            try:
                yield connection
            except asyncio.CancelledError:
                connection.terminate()
                raise

    async def settle_pending(
        self, judge: Callable[[Sequence[Event]], Awaitable[list[Event]]], most: int
    ) -> list[tuple[Event, Settled]] | None:
        """Moves the oldest pending events, as `judge` answers them, to the events. None while another process does.

        Raises JournalOutdated where the epoch of the counters that judged is over, JournalRejected, DayMissing or
        JournalContended, and then nothing was moved; or JournalAway, and then that is not known.
        """
        with _translated_errors():
            async with self._pool.acquire(timeout=ACQUIRE_TIMEOUT_S) as connection, connection.transaction():
                if not await connection.fetchval(SQL.pending_turn):
                    return None
                rows = await connection.fetch(SQL.take_pending, most)
                events = sorted(
                    (_decode_event(row["event"]) for row in rows), key=lambda event: event.received_at_ms
                )
                judged = await judge(events) if events else []
                settled = await _settle_rated(connection, judged) if judged else []
                return list(zip(judged, settled, strict=True))

    async def quarantine_pending(self, event: Event, reason: str) -> None:
        """Puts a pending event aside, unless another process has moved it."""
        key = day_of(event.ticket.issued_at_ms), event.ticket.ticket, event.kind
        with _translated_errors():
            async with self._pool.acquire(timeout=ACQUIRE_TIMEOUT_S) as connection, connection.transaction():
                if await connection.fetchval(SQL.take_one_pending, *key):
                    await _quarantine(connection, event, reason)

    async def count_pending(self) -> int:
        with _translated_errors():
            counted: int = await self._pool.fetchval(SQL.count_pending)
        return counted

    async def quarantine(self, event: Event, reason: str) -> EventId:
        """Keeps an event whole, whatever it holds. The first of a ticket and kind is kept."""
        with _translated_errors():
            async with self._pool.acquire(timeout=ACQUIRE_TIMEOUT_S) as connection:
                kept = await _quarantine(connection, event, reason)
        if kept is None:
            raise JournalContended("another event of the ticket is being put in quarantine")
        return EventId(kept)

    async def of_ticket(self, ticket: Ticket) -> list[Kept]:
        """The events of a ticket in the order they came, as told by the millisecond."""
        with _translated_errors():
            rows = await self._pool.fetch(SQL.of_ticket, day_of(ticket.issued_at_ms), ticket.ticket)
        return [
            Kept(
                EventId(event),
                EventKind(kind),
                Outcome(outcome),
                Money(billed_micros, currency) if outcome == RECORDED else None,
            )
            for event, kind, outcome, billed_micros, currency in rows
        ]

    async def hides(self, since_ms: int, most: int) -> list[tuple[bytes, int, int]]:
        """The newest hides and reports from a moment on, oldest first: viewer, advertiser, moment of receipt."""
        with _translated_errors():
            rows = await self._pool.fetch(SQL.hides, from_ms(since_ms), most)
        return [
            (viewer, advertiser, to_ms(received_at)) for viewer, advertiser, received_at in reversed(rows)
        ]

    async def count_since(self, received_at_ms: int) -> int:
        with _translated_errors():
            counted: int = await self._pool.fetchval(SQL.count_since, from_ms(received_at_ms))
        return counted

    async def since(self, received_at_ms: int) -> AsyncIterator[Counted]:
        """What has been counted from a moment on, in the order it was received."""
        with _translated_errors():
            async with self._pool.acquire() as connection, connection.transaction(readonly=True):
                await connection.execute(SQL.take_time)
                cursor = await connection.cursor(SQL.since, from_ms(received_at_ms))
                while rows := await cursor.fetch(PAGE_ROWS, timeout=SORTED_WITHIN_S):
                    for row in rows:
                        yield _counted(row)

    async def shown_since(self, received_at_ms: int) -> AsyncIterator[Shown]:
        """The same by viewer, one after the other."""
        with _translated_errors():
            async with self._pool.acquire() as connection, connection.transaction(readonly=True):
                await connection.execute(SQL.take_time)
                await connection.execute(SQL.join_by_key)
                cursor = await connection.cursor(SQL.shown_since, from_ms(received_at_ms))
                while rows := await cursor.fetch(PAGE_ROWS, timeout=SORTED_WITHIN_S):
                    for viewer, labels, events, last_ms in rows:
                        yield Shown(viewer, tuple(labels), events, last_ms)


@asynccontextmanager
async def _transaction(connection: Connection) -> AsyncIterator[None]:
    """As the driver's own, but that one which is given up asks nothing more of a server that may not answer."""
    transaction = connection.transaction()
    await transaction.start()
    try:
        yield
    except asyncio.CancelledError:
        raise  # its connection ends, and it with that
    except BaseException:
        await transaction.rollback()
        raise
    await transaction.commit()


async def _settle_rated(connection: Connection, events: Sequence[Event]) -> list[Settled]:
    changed = await connection.fetch(SQL.settle, rows_of(events), _oldest_epoch(events))
    settled = [Settled(event.event, event.outcome, _charge(event)) for event in events]
    for ordinal, first, outcome in changed:
        settled[ordinal - 1] = (
            Settled(first, DUPLICATE, None, waits=True)
            if outcome == ACCEPTED
            else Settled(first or events[ordinal - 1].event, Outcome(outcome), None)
        )
    return settled


def _charge(event: Event) -> Money | None:
    if event.outcome is not RECORDED:
        return None
    return Money(event.ticket.price_micros, event.ticket.currency)


def _oldest_epoch(events: Iterable[Event]) -> int | None:
    return min((event.counted_in for event in events if event.counted_in is not None), default=None)


def _to_be_judged(event: Event) -> Event:
    if event.counted_in is None:
        return event
    return msgspec.structs.replace(event, outcome=ACCEPTED, counted_in=None)


async def _keep_pending(connection: Connection, events: Sequence[Event]) -> list[Settled]:
    rows = [
        (
            day_of(event.ticket.issued_at_ms),
            event.ticket.ticket,
            event.kind,
            event.event,
            event.ticket.lease,
            from_ms(event.received_at_ms),
            msgspec.msgpack.encode(event),
        )
        for event in events
    ]
    columns = [list(column) for column in zip(*rows, strict=True)]
    await connection.execute(SQL.keep_pending, *columns)
    firsts = await connection.fetch(SQL.first_of, *columns[:3])
    if any(first is None for (first,) in firsts):
        raise JournalContended("the first event of a key went away")
    return [
        Settled(EventId(first), ACCEPTED if first == event.event else DUPLICATE, None)
        for event, (first,) in zip(events, firsts, strict=True)
    ]


async def _quarantine(connection: Connection, event: Event, reason: str) -> UUID | None:
    kept: UUID | None = await connection.fetchval(
        SQL.quarantine,
        event.ticket.ticket,
        event.kind,
        event.event,
        msgspec.json.encode(event),
        reason.replace("\0", ""),
        from_ms(event.received_at_ms),
    )
    return kept


def rows_of(events: Iterable[Event]) -> list[tuple[object, ...]]:
    """The parameter of settle_batch()."""
    return [_row(event) for event in events]


def _row(event: Event) -> tuple[object, ...]:
    ticket, (reason, judged_by, origin) = event.ticket, event.verdict
    return (
        ticket.ticket,
        event.kind,
        event.event,
        event.outcome,
        ticket.price_micros,
        ticket.currency,
        ticket.billable,
        ticket.bid_model,
        ticket.decision,
        ticket.advertiser,
        ticket.campaign,
        ticket.ad,
        ticket.creative,
        ticket.revision,
        ticket.lease,
        ticket.budget_day,
        ticket.epoch,
        ticket.surface,
        ticket.country,
        ticket.platform,
        ticket.position,
        ticket.propensity,
        ticket.model,
        ticket.catalogue_version,
        ticket.rules_version,
        ticket.arm,
        ",".join(ticket.labels),
        ticket.issued_at_ms,
        ticket.expires_at_ms,
        event.received_at_ms,
        event.occurred_at_ms,
        event.view_ms,
        ticket.viewer_cap,
        ticket.viewer_log,
        reason,
        judged_by,
        None if origin == NOWHERE else "\t".join(origin.crawlers),
        origin.network,
        origin.address,
        origin.device,
    )


def _counted(row: asyncpg.Record) -> Counted:
    ticket, viewer, ad, campaign, advertiser, labels, kind, outcome, received_at_ms, expires_at_ms = row
    return Counted(
        ticket,
        viewer,
        ad,
        campaign,
        advertiser,
        tuple(labels),
        EventKind(kind),
        Outcome(outcome),
        received_at_ms,
        expires_at_ms,
    )


@contextmanager
def _translated_errors() -> Iterator[None]:
    try:
        yield
    except _CONTENDED as error:
        raise JournalContended(str(error)) from error
    except asyncpg.ObjectNotInPrerequisiteStateError as error:
        raise JournalOutdated(str(error)) from error
    except asyncpg.CheckViolationError as error:
        # The only check without a name is that for a row's partition.
        raise (JournalRejected if error.constraint_name else DayMissing)(str(error)) from error
    except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, ValueError) as error:
        # ValueError is the driver's own, for a value that does not fit its column's type.
        raise JournalRejected(str(error)) from error
    except (*AWAY, asyncpg.PostgresError) as error:
        raise JournalAway(f"the database: {error or type(error).__name__}") from error
