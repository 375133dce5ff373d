"""Deltas are moved into roll-ups: none is lost or doubled, whoever writes, moves or reads meanwhile."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest
from waiting import until
from world import PRICE_MICROS, World, superuser

from adserve.database.pools import Pools, Sizes, open_pools
from adserve.store.journal import SQL, rows_of
from adserve.store.rollups import Rollups

BATCHES, WRITERS, A_BATCH = 12, 2, 5

SUMS = "SELECT sum(events)::bigint AS events, sum(billed_micros)::bigint AS micros FROM rollup_parts"
LEFT = "SELECT count(*) FROM rollup_deltas"

NAIVE = """
INSERT INTO rollups AS r (hour, campaign_id, ad_id, kind, outcome, currency, advertiser_id, events, billed_micros, invalid_micros)
SELECT hour, campaign_id, ad_id, kind, outcome, currency, advertiser_id, sum(events), sum(billed_micros), sum(invalid_micros)
FROM rollup_deltas GROUP BY 1, 2, 3, 4, 5, 6, 7
ON CONFLICT (hour, campaign_id, ad_id, kind, outcome, currency, advertiser_id) DO UPDATE
SET events = r.events + excluded.events, billed_micros = r.billed_micros + excluded.billed_micros"""


@pytest.fixture
async def pools(database_url: str) -> AsyncIterator[Pools]:
    opened = await open_pools(database_url, sizes=Sizes(recorder=8))
    yield opened
    await opened.close()


async def sums(world: World) -> tuple[int, int]:
    return tuple(await world.pools.analyst.fetchrow(SUMS))


async def write(world: World, lease: int) -> None:
    for _ in range(BATCHES):
        await world.journal.settle([world.event(world.ticket(lease)) for _ in range(A_BATCH)])


async def test_two_compactors_beside_writers_lose_and_double_nothing(world: World) -> None:
    leases = [await world.lease(10_000_000) for _ in range(WRITERS)]
    writing = asyncio.gather(*(write(world, lease) for lease in leases))
    seen = 0

    async def compact() -> int:
        moved = 0
        while not writing.done():
            moved += await Rollups(world.pools.recorder).compact()
            await asyncio.sleep(0)
        return moved

    async def read() -> None:
        nonlocal seen
        while not writing.done():
            events, micros = await sums(world)
            assert (micros or 0) == (events or 0) * PRICE_MICROS  # both of one moment
            assert (events or 0) >= seen
            seen = events or 0

    moved = await asyncio.gather(compact(), compact(), read())
    await writing
    total = WRITERS * BATCHES * A_BATCH
    assert await sums(world) == (total, total * PRICE_MICROS)
    assert sum(filter(None, moved)) > 0
    await Rollups(world.pools.recorder).compact()
    assert await world.fetchval(LEFT) == 0
    assert await sums(world) == (total, total * PRICE_MICROS)


async def settle_on(connection: asyncpg.Connection, world: World) -> None:
    lease = await world.lease(10_000_000)
    await connection.fetch(SQL.settle, rows_of([world.event(world.ticket(lease))]), None)


async def test_a_delta_that_is_committed_late_is_counted(world: World) -> None:
    async with world.pools.recorder.acquire() as late, late.transaction():
        await settle_on(late, world)
        await settle_on(world.pools.recorder, world)
        assert await Rollups(world.pools.recorder).compact() == 1
    assert (await sums(world))[0] == 2
    assert await Rollups(world.pools.recorder).compact() == 1
    assert (await sums(world))[0] == 2


async def test_control_adding_up_first_and_deleting_then_loses_it(world: World, database_url: str) -> None:
    naive = await superuser(database_url)
    async with world.pools.recorder.acquire() as late, naive.transaction():
        async with late.transaction():
            await settle_on(late, world)
            await settle_on(world.pools.recorder, world)
            await naive.execute(NAIVE)
        await naive.execute("DELETE FROM rollup_deltas")
    await naive.close()
    assert (await sums(world))[0] == 1


async def test_a_crash_in_between_leaves_the_deltas(world: World, database_url: str) -> None:
    lease = await world.lease(10_000_000)
    await world.journal.settle([world.event(world.ticket(lease)) for _ in range(A_BATCH)])
    dying = await superuser(database_url)
    begun = dying.transaction()
    await begun.start()
    assert await dying.fetchval("SELECT compact_rollups(100)") == 1
    other = asyncio.create_task(Rollups(world.pools.recorder).compact())
    assert await other == 0  # what another one has taken is passed over
    assert (await sums(world))[0] == A_BATCH
    dying.terminate()
    await until(Rollups(world.pools.recorder).compact)  # the server has noticed
    assert await sums(world) == (A_BATCH, A_BATCH * PRICE_MICROS)
    assert await world.fetchval(LEFT) == 0
