"""With counters in Redis any number of processes serve, but none that counts in its own memory.

The twin of ServingLock: all take the same lock, shared. It keeps a process with counters in memory out, and cannot be had while one
serves.
"""

import asyncio

import asyncpg

from adserve.database.pools import CONNECT_TIMEOUT_S
from adserve.database.refusal import DatabaseRefused
from adserve.database.replica_lock import CONNECTION_SETTINGS, PATIENCE_S, RETRY_S, SQL, Serving


class SharedServing:
    def __init__(self, url: str) -> None:
        self.state = Serving.OUTSIDE
        self._url = url
        self._connection: asyncpg.Connection | None = None

    def may_serve(self, _now_ms: int) -> bool:
        """What the counters do not know for sure they say themselves."""
        return True

    async def acquire(self, now_ms: int) -> None:
        """PostgreSQL may take a moment to notice that a killed holder is gone."""
        for _ in range(round(PATIENCE_S / RETRY_S)):
            try:
                return await self.keep(now_ms)
            except DatabaseRefused:
                await asyncio.sleep(RETRY_S)
        await self.keep(now_ms)

    async def keep(self, _now_ms: int) -> None:
        """Takes the lock again when its connection has died. Raises DatabaseRefused when a process with counters in memory has
        it."""
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                if self._connection is None:
                    self._connection = await asyncpg.connect(
                        self._url, timeout=CONNECT_TIMEOUT_S, server_settings=CONNECTION_SETTINGS
                    )
                    if not await self._connection.fetchval(SQL.try_lock_shared):
                        raise DatabaseRefused(
                            "a process that has its counters in memory serves from this database: stop it first"
                        )
                await self._connection.execute(SQL.alive)
        except BaseException:
            self._leave(Serving.DISCONNECTED)
            raise
        self.state = Serving.SHARED

    async def release(self) -> None:
        self._leave(Serving.OUTSIDE)

    def _leave(self, state: Serving) -> None:
        self.state = state
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None
