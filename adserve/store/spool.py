"""Where events are durable while PostgreSQL is away: one SQLite file for all processes of a machine and database.

Every commit is synced before it is answered. SQLite's own locks keep processes apart, and its journal undoes what one of
them had not committed when it was killed. Whoever comes next finds the file with all that was kept.
"""

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from uuid import UUID, uuid4

import msgspec

from adserve.database.file_lock import alone, try_lock
from adserve.database.synced import sync_folder
from adserve.domain.events import CONFIRMING, Event, EventKind, Outcome, Settled
from adserve.domain.ids import EventId
from adserve.domain.tickets import Ticket
from adserve.limits.erased import from_nobody
from adserve.metering.errors import RecorderUnavailable, SpoolFull
from adserve.store.errors import Away, StoreError
from adserve.store.journal import Counted, Kept
from adserve.store.statements import load

SQL = load("spool")

FILE_VERSION = 1
EVENT_FORMAT = b"\x01"
BUSY_S = 2.0
"""How long another process's commit is waited for."""
PAGE_ROWS = 1_000
FULL_SYNC = 2

_Result = TypeVar("_Result")

_decode = msgspec.msgpack.Decoder(Event).decode


class SpoolUnusable(StoreError):
    """The file cannot keep what it is given: it is damaged, of a later version, or its disk cannot do what it must."""


class Row(NamedTuple):
    """`event` is None where `raw` is nothing that we wrote."""

    number: int
    ticket: UUID
    kind: str
    id: UUID
    received_at_ms: int
    event: Event | None
    raw: bytes


class Waiting(NamedTuple):
    """`bytes` are those that the rows take of the file's bound; `oldest_at_ms` is when the oldest event was received."""

    events: int
    bytes: int
    oldest_at_ms: int | None


class Spool:
    """Opened by `open`, ended by `close`. `trouble` says why the newest event was not taken, if it was not. What is read or removed raises
    Away when the file cannot be used now."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.trouble: str | None = None
        self.id = UUID(bytes=connection.execute(SQL.name_of_spool).fetchone()[0])
        self._path = path
        self._connection = connection
        self._thread = ThreadPoolExecutor(1, "spool")

    @classmethod
    def open(cls, path: Path, max_bytes: int) -> "Spool":
        """Makes the file where there is none. Raises SpoolUnusable."""
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            connection = sqlite3.connect(path, BUSY_S, isolation_level=None, check_same_thread=False)
            # Whoever comes second to begin a write-ahead log is told at once that the file is locked, however long it would wait.
            with alone(path.with_suffix(".open")):
                cls.prepare(connection, max_bytes)
            for folder in (path.parent, path.parent.parent):
                sync_folder(folder)
            return cls(path, connection)
        except (sqlite3.Error, OSError) as error:
            raise SpoolUnusable(f"the spool {path}: {error}; move it away to start without it") from error

    @staticmethod
    def prepare(connection: sqlite3.Connection, max_bytes: int) -> None:
        version = _pragma(connection, "user_version")
        if version > FILE_VERSION:
            raise SpoolUnusable(f"the spool is of version {version}, and this program knows {FILE_VERSION}")
        _pragma(connection, "journal_mode = WAL")
        _pragma(connection, "synchronous = FULL")
        _pragma(connection, "secure_delete = ON")
        if _pragma(connection, "journal_mode") != "wal" or _pragma(connection, "synchronous") != FULL_SYNC:
            raise SpoolUnusable("its disk cannot have a write-ahead log that is synced")
        _pragma(connection, f"max_page_count = {max_bytes // _pragma(connection, 'page_size')}")
        with _transaction(connection):
            for statement in (SQL.create_spooled, SQL.create_by_time, SQL.create_spool):
                connection.execute(statement)
            connection.execute(SQL.name_spool, (uuid4().bytes,))
            _pragma(connection, f"user_version = {FILE_VERSION}")

    def close(self) -> None:
        self._thread.submit(self._connection.close)
        self._thread.shutdown()

    async def keep(self, events: Sequence[Event]) -> list[Settled]:
        """Commits all of the events, synced, and answers in their order. Raises RecorderUnavailable when it cannot."""
        try:
            kept = await self._in_thread(self._keep, events)
        except sqlite3.Error as error:
            full = error.sqlite_errorcode == sqlite3.SQLITE_FULL
            self.trouble = "full" if full else str(error)
            raise SpoolFull if full else RecorderUnavailable(f"the spool: {error}") from error
        self.trouble = None
        return kept

    async def oldest(self, most: int, after: int = 0) -> list[Row]:
        return [_row(*row) for row in await self._fetch(SQL.oldest, after, most)]

    async def remove(self, numbers: Sequence[int]) -> None:
        def remove() -> None:
            with _transaction(self._connection):
                self._connection.executemany(SQL.remove, [(number,) for number in numbers])
                waits = self._connection.execute(SQL.waits).fetchone()
            if waits is None:  # what has settled is not to be found in the log either
                _pragma(self._connection, "wal_checkpoint(TRUNCATE)")

        await self._run(remove)

    async def erase(self, viewer: bytes) -> None:
        """Takes the viewer's keys out of the events that wait. SQLite overwrites what it replaces, and the log that still has it, and
        those that have settled, is cut off."""

        def erase() -> None:
            with _transaction(self._connection):
                for number, raw in self._connection.execute(SQL.of_viewer, (viewer,)).fetchall():
                    event = _decoded(raw)
                    if event is not None:
                        self._connection.execute(SQL.strip, (_encoded(from_nobody(event)), number))
            if _pragma(self._connection, "wal_checkpoint(TRUNCATE)"):
                raise sqlite3.OperationalError("others were at it all the time: its log could not be cut off")

        await self._run(erase)

    async def waiting(self) -> Waiting:
        def read() -> Waiting:
            events, oldest_at_ms = self._connection.execute(SQL.waiting).fetchone()
            pages = _pragma(self._connection, "page_count") - _pragma(self._connection, "freelist_count")
            return Waiting(events, pages * _pragma(self._connection, "page_size"), oldest_at_ms)

        return await self._run(read)

    async def of_ticket(self, ticket: Ticket) -> list[Kept]:
        rows = await self._fetch(SQL.of_ticket, ticket.ticket.bytes)
        return [
            Kept(EventId(UUID(bytes=event)), EventKind(kind), Outcome.ACCEPTED, None) for event, kind in rows
        ]

    async def counted(self) -> AsyncIterator[Counted]:
        """What the counters are rebuilt from. Impressions and views that were never judged are not: they are to be."""
        after = 0
        while rows := await self.oldest(PAGE_ROWS, after):
            after = rows[-1].number
            for row in rows:
                event = row.event
                if (
                    event is not None
                    and event.ticket.viewer_cap
                    and (
                        event.kind in (EventKind.HIDE, EventKind.REPORT)
                        or (event.kind in CONFIRMING and event.outcome is not Outcome.ACCEPTED)
                    )
                ):
                    yield _counted(event)

    async def hides(self, since_ms: int) -> list[tuple[bytes, int, int]]:
        """Viewer, advertiser and moment of receipt."""
        events = [_decoded(raw) for (raw,) in await self._fetch(SQL.hides, since_ms)]
        return [
            (event.ticket.viewer_cap, event.ticket.advertiser, event.received_at_ms)
            for event in events
            if event is not None and event.ticket.viewer_cap
        ]

    @contextmanager
    def turn(self) -> Iterator[bool]:
        """Whether it is this process's turn to settle what is in the file: one does at a time."""
        lock = try_lock(self._path.with_suffix(".turn"))
        try:
            yield lock is not None
        finally:
            if lock is not None:
                os.close(lock)

    def _keep(self, events: Sequence[Event]) -> list[Settled]:
        connection, settled = self._connection, []
        with _transaction(connection):
            for event in events:
                outcome, first = Outcome.ACCEPTED, event.event
                key = event.ticket.ticket.bytes, event.kind.value
                if not connection.execute(SQL.keep, (*key, *_values(event))).rowcount:
                    outcome = Outcome.DUPLICATE
                    first = EventId(UUID(bytes=connection.execute(SQL.first_of, key).fetchone()[0]))
                settled.append(Settled(first, outcome, None, waits=True))
        return settled

    async def _fetch(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        return await self._run(lambda: self._connection.execute(statement, values).fetchall())

    async def _run(self, work: Callable[[], _Result]) -> _Result:
        try:
            return await self._in_thread(work)
        except sqlite3.Error as error:
            raise Away(f"the spool: {error}") from error

    async def _in_thread(self, work: Callable[..., _Result], *arguments: object) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute(SQL.begin)
    try:
        yield
        connection.commit()
    except BaseException:
        if connection.in_transaction:  # SQLite itself undoes one that found its disk full
            connection.rollback()
        raise


def _pragma(connection: sqlite3.Connection, pragma: str) -> Any:
    answer = connection.execute(f"PRAGMA {pragma}").fetchone()
    return None if answer is None else answer[0]


def _values(event: Event) -> tuple[object, ...]:
    ticket, raw = event.ticket, _encoded(event)
    return event.event.bytes, event.received_at_ms, ticket.viewer_cap, ticket.viewer_log, raw


def _encoded(event: Event) -> bytes:
    return EVENT_FORMAT + msgspec.msgpack.encode(event)


def _decoded(raw: bytes) -> Event | None:
    try:
        return _decode(raw[1:]) if raw[:1] == EVENT_FORMAT else None
    except (msgspec.DecodeError, ValueError):
        return None


def _row(number: int, ticket: bytes, kind: str, id_: bytes, received_at_ms: int, raw: bytes) -> Row:
    return Row(number, UUID(bytes=ticket), kind, UUID(bytes=id_), received_at_ms, _decoded(raw), raw)


def _counted(event: Event) -> Counted:
    ticket = event.ticket
    return Counted(
        ticket.ticket,
        ticket.viewer_cap,
        ticket.ad,
        ticket.campaign,
        ticket.advertiser,
        ticket.labels,
        event.kind,
        event.outcome,
        event.received_at_ms,
        ticket.expires_at_ms,
        settled=False,
    )
