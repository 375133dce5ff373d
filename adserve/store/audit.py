"""What a whole database says of itself, for runs that know what it should say."""

from typing import NamedTuple

import asyncpg

from adserve.domain.ads import Cap
from adserve.store.statements import load

SQL = load("audit")


class Stored(NamedTuple):
    """`events` by kind and outcome; `billed_micros` by campaign from the events, `posted_micros` from the postings."""

    events: dict[tuple[str, str], int]
    billed_micros: dict[int, int]
    posted_micros: dict[int, int]
    billed_twice: int


class Audit:
    """Reads every event there is: for a database of one run. Needs a pool of adserve_recorder."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def stored(self) -> Stored:
        async with (
            self._pool.acquire() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            return Stored(
                {(kind, outcome): events for kind, outcome, events in await connection.fetch(SQL.outcomes)},
                dict(await connection.fetch(SQL.billed)),
                dict(await connection.fetch(SQL.posted)),
                await connection.fetchval(SQL.billed_twice),
            )

    async def over_cap(self, cap: Cap) -> int:
        """How many counted impressions stood in a window with more of them than the cap allows."""
        violations: int = await self._pool.fetchval(SQL.over_cap, cap.scope, cap.count, cap.window_s)
        return violations
