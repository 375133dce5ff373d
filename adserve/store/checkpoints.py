"""Checkpoints of the counters."""

from collections.abc import AsyncIterator, Iterable

import asyncpg

from adserve.domain.time import from_ms, to_ms
from adserve.store.statements import load

SQL = load("checkpoints")

PARTS_AT_ONCE = 4


class Checkpoints:
    """Needs a pool of adserve_recorder."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def save(self, parts: Iterable[bytes], taken_at_ms: int) -> None:
        """Replaces the checkpoint before it, whole or not at all. Takes one part after the other, as making one is work.

        It is dated by the oldest event that is still to be judged or stored, if there is one: that will count from the moment when it
        was received, and whoever fills counters from this checkpoint has to read it.
        """
        async with self._pool.acquire() as connection, connection.transaction():
            taken_at = await connection.fetchval(SQL.counts_until, from_ms(taken_at_ms))
            await connection.execute(SQL.forget)
            await connection.execute(SQL.save_part, taken_at, 0, 1, b"")  # empty counters have this one
            for part, payload in enumerate(parts, 1):
                await connection.execute(SQL.save_part, taken_at, part, part + 1, payload)

    async def taken_at_ms(self) -> int | None:
        """The date of the newest whole one, if there is one."""
        taken_at = await self._pool.fetchval(SQL.taken_at)
        return None if taken_at is None else to_ms(taken_at)

    async def parts(self) -> AsyncIterator[bytes]:
        """Of the newest whole one."""
        async with self._pool.acquire() as connection, connection.transaction(readonly=True):
            async for row in connection.cursor(SQL.parts, prefetch=PARTS_AT_ONCE):
                yield row["payload"]
