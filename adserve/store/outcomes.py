"""What steps of ramps are judged by, as far as it is of viewers: the log of assignments, and sums for each viewer; and each minute's figures."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

import asyncpg

from adserve.domain.rollouts import Stage
from adserve.domain.time import DAY_MS, MINUTE_MS, SECOND_MS, from_ms, to_ms
from adserve.rollout.arms import Standing
from adserve.rollout.assignments import Assignment
from adserve.rollout.figures import Saved
from adserve.store.errors import AWAY, Away
from adserve.store.statements import load

SQL = load("outcomes")

CONNECTIONS_MAX = 2
"""Of the recorder's pool: events go first."""
TIMEOUT_S = 5.0
TRIES_MAX = 4
EVENTS_LAG_MS = 60 * SECOND_MS
"""Events are counted so long after their receipt, when their batches have committed, and not before what was spooled has settled."""
SPOOL_SILENT_MS = 15 * MINUTE_MS
"""A machine that says nothing of its spool for so long may never come back: what is in it is not waited for."""
EVENTS_SPAN_MS = 30 * SECOND_MS
EVENTS_TIMEOUT_S = 30.0
SUMS_AT_ONCE = 50_000
FORGET_AT_ONCE = 5_000
FORGET_BATCHES_MAX = 20
"""In one step."""
IDS_KEPT_MS = 7 * DAY_MS
MINUTES_KEPT_MS = 30 * DAY_MS

Connection = Any
Answer = TypeVar("Answer")


class Told(NamedTuple):
    """An outcome of a viewer who is compared. `key` stands for the id that the feed service gave it, `viewer` is the pseudonym for
    caps, `at_ms` when it occurred; what is None was not told."""

    key: bytes
    standing: Standing
    viewer: bytes
    at_ms: int
    statuses_viewed: int | None
    session_seconds: int | None
    returned_next_day: bool | None
    posts_made: int | None


class Outcomes:
    """Needs a pool of adserve_recorder; `replica` is this process. Raises Away."""

    def __init__(self, pool: asyncpg.Pool, replica: UUID) -> None:
        self._pool = pool
        self._replica = replica
        self._room = asyncio.Semaphore(CONNECTIONS_MAX)

    async def add(self, told: Sequence[Told], now_ms: int) -> set[bytes]:
        """Commits those that are new, and answers their keys, which have to be different. Of a viewer who was erased since
        nothing is kept but the key."""
        return await self._try(lambda: self._add(told, now_ms))

    async def assign(self, assignments: Sequence[Assignment]) -> None:
        columns = _columns(
            [
                (*_key(each.standing.stage), each.viewer, each.standing.arm, from_ms(each.at_ms))
                for each in assignments
            ]
        )

        async def write() -> None:
            async with self._lent() as connection:
                await connection.execute(SQL.assign, *columns, timeout=TIMEOUT_S)

        await self._try(write)

    async def save_minutes(self, minutes: Sequence[Saved]) -> None:
        rows = [
            (
                *(ramp, from_ms(minute_ms), self._replica, of.looked, of.unfilled, of.decisions, of.errors),
                *(of.placed, of.predicted, of.paced, of.off_pace, list(of.decision_ms), list(of.feed_ms)),
            )
            for ramp, minute_ms, of in minutes
        ]
        async with self._lent() as connection:
            await connection.executemany(SQL.save_minutes, rows, timeout=TIMEOUT_S)

    async def count_events(self, surface: str, stage: Stage, now_ms: int) -> None:
        """Adds to the exposed viewers' rows what has come of the ads that they were shown; one process at a time."""
        key, until_ms = _key(stage), now_ms - EVENTS_LAG_MS
        async with self._lent() as connection, connection.transaction():
            await connection.execute(SQL.begin_reading, *key, timeout=TIMEOUT_S)
            read_to = await connection.fetchval(SQL.read_to, *key, timeout=TIMEOUT_S)
            silent = from_ms(now_ms - SPOOL_SILENT_MS)
            settled = await connection.fetchval(SQL.settled_until, silent, timeout=TIMEOUT_S)
            if settled is not None:
                until_ms = min(until_ms, to_ms(settled))
            if read_to is None or to_ms(read_to) >= until_ms:
                return
            end = from_ms(min(until_ms, to_ms(read_to) + EVENTS_SPAN_MS))
            await connection.execute(SQL.count_events, *key, surface, read_to, end, timeout=EVENTS_TIMEOUT_S)

    async def compact(self) -> None:
        async with self._lent() as connection:
            await connection.execute(SQL.compact, SUMS_AT_ONCE, timeout=TIMEOUT_S)

    async def erase(self, viewers: Sequence[bytes]) -> None:
        """Takes them out of the arms' moments too."""
        async with self._lent() as connection:
            for stage in await connection.fetch(SQL.stages, timeout=TIMEOUT_S):
                await connection.execute(SQL.erase, *stage, viewers, timeout=TIMEOUT_S)

    async def held(self, viewer: bytes) -> list[dict[str, Any]]:
        """What is kept of one viewer, by step."""
        async with self._lent() as connection:
            return [
                dict(row)
                for stage in await connection.fetch(SQL.stages, timeout=TIMEOUT_S)
                for row in await connection.fetch(SQL.held, *stage, viewer, timeout=TIMEOUT_S)
            ]

    async def forget(self, viewers_before_ms: int, now_ms: int) -> None:
        """Viewers who were assigned before a moment, bit by bit, and what is long past of the rest."""
        for statement, before_ms in (
            (SQL.forget_viewers, viewers_before_ms),
            (SQL.forget_ids, now_ms - IDS_KEPT_MS),
        ):
            for _ in range(FORGET_BATCHES_MAX):
                async with self._lent() as connection:
                    gone = await connection.execute(
                        statement, from_ms(before_ms), FORGET_AT_ONCE, timeout=TIMEOUT_S
                    )
                if gone != f"DELETE {FORGET_AT_ONCE}":
                    break
        async with self._lent() as connection:
            await connection.execute(SQL.forget_minutes, from_ms(now_ms - MINUTES_KEPT_MS), timeout=TIMEOUT_S)
            await connection.execute(SQL.forget_reads, from_ms(viewers_before_ms), timeout=TIMEOUT_S)

    async def _add(self, told: Sequence[Told], now_ms: int) -> set[bytes]:
        now = from_ms(now_ms)
        async with self._lent() as connection, connection.transaction():
            new = {
                key
                for (key,) in await connection.fetch(
                    SQL.claim, [each.key for each in told], now, timeout=TIMEOUT_S
                )
            }
            rows = [
                (*_key(each.standing.stage), each.viewer, each.standing.arm, from_ms(each.at_ms), *each[4:])
                for each in told
                if each.key in new
            ]
            if rows:
                await connection.execute(SQL.add, now, *_columns(rows), timeout=TIMEOUT_S)
        return new

    async def _try(self, write: Callable[[], Coroutine[Any, Any, Answer]]) -> Answer:
        """Again where it lost against somebody who writes the same rows in another order: deletions do."""
        for _ in range(TRIES_MAX - 1):
            try:
                return await write()
            except (asyncpg.DeadlockDetectedError, asyncpg.SerializationError):
                pass
        try:
            return await write()
        except (asyncpg.DeadlockDetectedError, asyncpg.SerializationError) as error:
            raise Away(str(error)) from error

    @asynccontextmanager
    async def _lent(self) -> AsyncIterator[Connection]:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await self._room.acquire()
            try:
                async with self._pool.acquire(timeout=TIMEOUT_S) as connection:
                    yield connection
            finally:
                self._room.release()
        except AWAY as error:
            raise Away(str(error)) from error


def _key(stage: Stage) -> tuple[Any, Any]:
    return stage.ramp, from_ms(stage.since_ms)


def _columns(rows: Sequence[tuple[Any, ...]]) -> list[list[Any]]:
    return list(map(list, zip(*rows, strict=True)))
