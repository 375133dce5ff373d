"""The funnel: what processes count each second, merged into hours, and read as a report."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

import asyncpg

from adserve.domain.time import DAY_MS, from_ms, to_ms
from adserve.reporting.funnel import Span
from adserve.selection.funnel import Flush, Generation
from adserve.store.desk import Connection
from adserve.store.setup import Row
from adserve.store.statements import load

SQL = load("funnel")

HOURS_KEPT_MS = 400 * DAY_MS
GAP_LOOKED_FOR_MS = DAY_MS
GENERATIONS_KEPT_MS = DAY_MS
"""Longer than any flush waits in a process."""


class FunnelStore:
    """Needs a pool of adserve_recorder. `replica` is this process."""

    def __init__(self, pool: asyncpg.Pool, replica: UUID) -> None:
        self._pool = pool
        self._replica = replica

    async def save(
        self,
        begun_ms: int,
        to_ms: int,
        generations: Sequence[Generation],
        flushes: Sequence[Flush],
        *,
        ended: bool,
    ) -> None:
        replica, from_at, to_at = self._replica, from_ms(begun_ms), from_ms(to_ms)
        async with self._pool.acquire() as connection, connection.transaction():
            for surface, number, *columns in generations:
                ids = [column.tolist() for column in columns]
                await connection.execute(SQL.save_generation, replica, surface, number, *ids, to_at)
            for flush in flushes:
                surface, number, *_ = flush.generation
                await connection.execute(
                    SQL.save_flush,
                    *(replica, from_at, from_ms(flush.to_ms), flush.part, from_ms(flush.hour_ms)),
                    *(surface, number),
                    flush.looked,
                    *[column.tolist() for column in flush[5:]],
                )
            await connection.execute(SQL.extend, replica, from_at, to_at, ended)

    async def merge(self, now_ms: int) -> None:
        """Adds what was saved up to now to the hours; and forgets what is long past."""
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(SQL.merge_lock)
            await connection.execute(SQL.merge, from_ms(now_ms))
            await connection.execute(SQL.forget_generations, from_ms(now_ms - GENERATIONS_KEPT_MS))
            await connection.execute(SQL.forget_hours, from_ms(now_ms - HOURS_KEPT_MS))
            await connection.execute(SQL.forget_spans, from_ms(now_ms - HOURS_KEPT_MS))


class Filters(NamedTuple):
    """`hour_from` is included, `hour_to` is not."""

    hour_from: datetime
    hour_to: datetime
    campaign: int | None


class Place(NamedTuple):
    """A row's place in the order of the report."""

    hour: datetime
    campaign: int


async def page(connection: Connection, filters: Filters, after: Place, limit: int) -> list[Row]:
    """What was counted is null in an hour of which only the ledger knows."""
    rows: list[Row] = await connection.fetch(SQL.page, limit, *after, *filters)
    return rows


async def spans(connection: Connection, since: datetime) -> list[Span]:
    """In the order in which they began; also those before that a gap may come from."""
    rows = await connection.fetch(SQL.spans, since - timedelta(milliseconds=GAP_LOOKED_FOR_MS))
    return [Span(row["replica"], to_ms(row["from_at"]), to_ms(row["to_at"]), row["ended"]) for row in rows]


async def counted_to(connection: Connection) -> datetime | None:
    """Up to when everything is in the hours."""
    moment: datetime | None = await connection.fetchval(SQL.counted_to)
    return moment
