"""Checkpoints of the counters, and the epochs that begin where none could carry the counters over whole."""

from collections.abc import Sequence

import asyncpg

from adserve.domain.time import from_ms, to_ms
from adserve.store.statements import load

SQL = load("checkpoints")


class Checkpoints:
    """Needs a pool of adserve_recorder."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def save(self, parts: Sequence[bytes], taken_at_ms: int) -> None:
        """Replaces the checkpoint before it. Empty counters have one empty part."""
        taken_at = from_ms(taken_at_ms)
        numbered = [(taken_at, part, len(parts) or 1, payload) for part, payload in enumerate(parts or [b""])]
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.executemany(SQL.save_part, numbered)
            await connection.execute(SQL.forget_others, taken_at)

    async def newest(self) -> tuple[int, list[bytes]] | None:
        """When the newest whole checkpoint was taken, and its parts."""
        rows = await self._pool.fetch(SQL.newest)
        if not rows:
            return None
        return to_ms(rows[0]["taken_at"]), [row["payload"] for row in rows if row["payload"]]

    async def open_epoch(self, now_ms: int) -> int:
        epoch: int = await self._pool.fetchval(SQL.open_epoch, from_ms(now_ms))
        return epoch
