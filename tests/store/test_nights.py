"""Two processes at the nightly reconciliation: one does it, however late the other looks."""

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from world import NOW_MS, World

from adserve.store.books import SQL, Night, Nights


class Meanwhile:
    """A pool of analysts whose connections stop between their snapshot and their turn, until that is done."""

    def __init__(self, pool: Any, done: Callable[[], Awaitable[None]]) -> None:
        self._pool = pool
        self._done = done

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[Any]:
        async with self._pool.acquire() as connection:
            yield Stopping(connection, self._done)


class Stopping:
    def __init__(self, connection: Any, done: Callable[[], Awaitable[None]]) -> None:
        self._connection = connection
        self._done = done

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    async def fetchval(self, statement: str, **given: Any) -> Any:
        if statement == SQL.night_turn:
            await self._done()
        return await self._connection.fetchval(statement, **given)


class OfItsSnapshot(Nights):
    """A broken twin, in whose snapshot there is no night yet."""

    async def newest(self) -> Night | None:
        return None


async def nights_written(world: World, late: type[Nights]) -> int:
    clock = itertools.count(NOW_MS).__next__
    analyst, recorder = world.pools.analyst, world.pools.recorder
    first = Nights(analyst, recorder)
    second = late(Meanwhile(analyst, lambda: first.run(NOW_MS, clock)), recorder)
    await second.run(NOW_MS, clock)
    written: int = await world.fetchval("SELECT count(*) FROM reconciliations")
    return written


async def test_who_looks_late_sees_the_night_that_another_wrote_since_its_snapshot(world: World) -> None:
    assert await nights_written(world, Nights) == 1


async def test_control_a_night_looked_for_in_that_snapshot_is_done_twice(world: World) -> None:
    assert await nights_written(world, OfItsSnapshot) == 2
