"""The newest events and today's spend: what somebody watches while it happens."""

from typing import Any

import asyncpg

from adserve.domain.time import Clock, from_ms
from adserve.store.statements import load

SQL = load("figures")


class Figures:
    """Needs a pool of adserve_analyst."""

    def __init__(self, pool: asyncpg.Pool, clock: Clock) -> None:
        self._pool = pool
        self._clock = clock

    async def newest_events(self, limit: int) -> list[dict[str, Any]]:
        """In the order of receipt, the newest first, with the names of campaign and advertiser."""
        return [dict(row) for row in await self._pool.fetch(SQL.newest_events, limit)]

    async def campaign_money(self) -> list[dict[str, Any]]:
        """What each campaign that is not archived has spent on its present budget day, and may spend."""
        return [dict(row) for row in await self._pool.fetch(SQL.campaign_money, from_ms(self._clock()))]
