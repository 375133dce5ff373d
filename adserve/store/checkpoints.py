"""Checkpoints of the counters, and the epochs that begin where none could carry the counters over whole."""

from collections.abc import Iterable

import asyncpg

from adserve.domain.time import from_ms, to_ms
from adserve.store.statements import load

SQL = load("checkpoints")


class Checkpoints:
    """Needs a pool of adserve_recorder."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def save(self, parts: Iterable[bytes], taken_at_ms: int) -> None:
        """Replaces the checkpoint before it, whole or not at all. Takes one part after the other, as making one is work."""
        taken_at = from_ms(taken_at_ms)
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(SQL.forget)
            await connection.execute(SQL.save_part, taken_at, 0, 1, b"")  # empty counters have this one
            for part, payload in enumerate(parts, 1):
                await connection.execute(SQL.save_part, taken_at, part, part + 1, payload)

    async def newest(self) -> tuple[int, list[bytes]] | None:
        """When the newest whole checkpoint was taken, and its parts."""
        rows = await self._pool.fetch(SQL.newest)
        if not rows:
            return None
        return to_ms(rows[0]["taken_at"]), [row["payload"] for row in rows if row["payload"]]

    async def open_epoch(self, now_ms: int) -> int:
        epoch: int = await self._pool.fetchval(SQL.open_epoch, from_ms(now_ms))
        return epoch
