"""The epochs of counters. Of shared ones, one process at a time begins one."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from adserve.domain.time import from_ms
from adserve.store.errors import AWAY, Away
from adserve.store.statements import load

SQL = load("epochs")
TIMEOUT_S = 2.0


class Turn:
    """The right to begin an epoch. It is lost with its connection, which every call asks."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def newest(self) -> int:
        epoch: int = await self._connection.fetchval(SQL.newest, timeout=TIMEOUT_S)
        return epoch

    async def open_epoch(self, now_ms: int) -> int:
        epoch: int = await self._connection.fetchval(SQL.open_epoch, from_ms(now_ms), timeout=TIMEOUT_S)
        return epoch


class Epochs:
    """Needs a pool of adserve_recorder."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def open(self, now_ms: int) -> int:
        """For counters that no other process shares. Waits for what the epoch before counted to be stored."""
        epoch: int = await self._pool.fetchval(SQL.open_epoch, from_ms(now_ms))
        return epoch

    async def newest(self) -> int:
        """Raises Away."""
        try:
            epoch: int = await self._pool.fetchval(SQL.newest, timeout=TIMEOUT_S)
        except (*AWAY, asyncpg.PostgresError) as error:
            raise Away(str(error)) from error
        return epoch

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[Turn | None]:
        """None while another process has it. It ends as the connection goes back."""
        async with self._pool.acquire(timeout=TIMEOUT_S) as connection:
            ours = await connection.fetchval(SQL.try_turn)
            yield Turn(connection) if ours else None
