"""Moves the deltas that settlement writes into roll-ups, a bounded number at a time."""

import asyncpg

from adserve.store.statements import load

SQL = load("rollups")

DELTAS_AT_ONCE = 20_000
"""Some 100 ms of work: no lock on a roll-up is held for longer."""


class Rollups:
    """Needs a pool of adserve_recorder."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def compact(self) -> int:
        """Moves the deltas that there are now, and answers how many. Safe beside writers and other compactors."""
        moved = 0
        while True:
            some: int = await self._pool.fetchval(SQL.compact, DELTAS_AT_ONCE)
            moved += some
            if some < DELTAS_AT_ONCE:
                return moved
