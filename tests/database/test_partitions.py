"""A partition a day, however often and by however many it is asked for."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta

import asyncpg
import pytest
from waiting import PATIENCE_S, until_a_lock_is_waited_for

from adserve.database import partitions
from adserve.database.pools import Pools, Sizes, open_pools

MONDAY = date(2026, 11, 23)
FRIDAY = MONDAY + timedelta(days=4)


async def names(pools: Pools, parent: str) -> list[str]:
    rows = await pools.owner.fetch(
        "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = $1::text::regclass ORDER BY 1",
        parent,
    )
    return [row[0] for row in rows]


async def insert(pools: Pools, day: date) -> None:
    await pools.owner.execute("INSERT INTO seen VALUES ($1, 1)", day)


@pytest.fixture
async def pools(database_url: str) -> AsyncIterator[Pools]:
    opened = await open_pools(database_url, sizes=Sizes(owner=4))
    await opened.owner.execute(
        "CREATE TABLE seen (issued_day date, id integer, PRIMARY KEY (issued_day, id)) PARTITION BY RANGE (issued_day)"
    )
    yield opened
    await opened.close()


async def test_every_day_gets_its_partition_once(pools: Pools) -> None:
    async with pools.owner.acquire() as connection:
        made = await partitions.ensure(connection, MONDAY, FRIDAY)
        assert await names(pools, "seen") == [f"seen_202611{day}" for day in (23, 24, 25, 26, 27)]
        assert made >= 5
        assert await partitions.ensure(connection, MONDAY, FRIDAY) == 0
        assert await partitions.ensure(connection, FRIDAY, FRIDAY + timedelta(days=1)) == made // 5


async def test_rows_of_a_day_without_a_partition_are_refused(pools: Pools) -> None:
    async with pools.owner.acquire() as connection:
        await partitions.ensure(connection, MONDAY, FRIDAY)
    await insert(pools, MONDAY)
    await insert(pools, FRIDAY)
    for day in (MONDAY - timedelta(days=1), FRIDAY + timedelta(days=1)):
        with pytest.raises(asyncpg.CheckViolationError, match="no partition"):
            await insert(pools, day)


async def test_four_at_once_make_each_partition_once(pools: Pools) -> None:
    async def ensure() -> int:
        async with pools.owner.acquire() as connection:
            return await partitions.ensure(connection, MONDAY, FRIDAY)

    made = await asyncio.gather(*(ensure() for _ in range(4)))
    assert sorted(made)[:3] == [0, 0, 0]
    assert len(await names(pools, "seen")) == 5


async def test_an_open_writer_is_not_in_the_way(pools: Pools) -> None:
    async with pools.owner.acquire() as connection, pools.owner.acquire() as writer:
        await partitions.ensure(connection, MONDAY, MONDAY)
        async with writer.transaction():
            await writer.execute("INSERT INTO seen VALUES ($1, 2)", MONDAY)
            async with asyncio.timeout(PATIENCE_S):
                assert await partitions.ensure(connection, MONDAY, FRIDAY) >= 4


async def test_control_creating_partitions_in_place_waits_for_an_open_writer(pools: Pools) -> None:
    async with pools.owner.acquire() as connection, pools.owner.acquire() as writer:
        await partitions.ensure(connection, MONDAY, MONDAY)
        async with writer.transaction():
            await writer.execute("INSERT INTO seen VALUES ($1, 2)", MONDAY)
            await connection.execute("SET lock_timeout = '200ms'")
            with pytest.raises(asyncpg.LockNotAvailableError):
                await connection.execute(
                    "CREATE TABLE seen_in_place PARTITION OF seen FOR VALUES FROM ('2026-11-27') TO ('2026-11-28')"
                )


async def test_a_partition_has_its_parents_key_and_no_grants(pools: Pools) -> None:
    await pools.owner.execute("GRANT SELECT, INSERT ON seen TO adserve_recorder")
    async with pools.owner.acquire() as connection:
        await partitions.ensure(connection, MONDAY, MONDAY)
    await pools.recorder.execute("INSERT INTO seen VALUES ($1, 1)", MONDAY)
    with pytest.raises(asyncpg.UniqueViolationError):
        await pools.recorder.execute("INSERT INTO seen VALUES ($1, 1)", MONDAY)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await pools.recorder.fetch("SELECT FROM seen_20261123")


async def test_the_session_time_zone_does_not_move_a_day(pools: Pools) -> None:
    async with pools.owner.acquire() as connection:
        await connection.execute("SET timezone = 'America/Santiago'")  # midnight does not exist on some days
        first = datetime(2026, 8, 25, tzinfo=UTC).date()
        await partitions.ensure(connection, first, first + timedelta(days=20))
    assert len(await names(pools, "seen")) == 21


async def test_days_that_are_over_are_indexed_one_by_one(pools: Pools) -> None:
    async with pools.owner.acquire() as connection:
        await partitions.ensure(connection, MONDAY, FRIDAY)
        before = MONDAY + timedelta(days=2)
        assert [
            await partitions.index_closed(connection, "seen", ("id", "issued_day"), before) for _ in range(3)
        ] == [
            True,
            True,
            False,
        ]
        indexed = await connection.fetch(
            "SELECT indrelid::regclass::text, indisvalid FROM pg_index WHERE NOT indisprimary AND indrelid::regclass::text LIKE 'seen_%'"
        )
        assert sorted(map(tuple, indexed)) == [("seen_20261123", True), ("seen_20261124", True)]


@pytest.fixture
async def broken(pools: Pools, database_url: str) -> Pools:
    """As a build leaves it that was cut short."""
    async with pools.owner.acquire() as connection:
        await partitions.ensure(connection, MONDAY, MONDAY)
        await partitions.index_closed(connection, "seen", ("id",), FRIDAY)
    superuser = await asyncpg.connect(database_url)
    await superuser.execute(
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'adserve.seen_20261123_by_id'::regclass"
    )
    await superuser.close()
    return pools


async def test_an_index_that_was_cut_short_is_built_again(broken: Pools) -> None:
    async with broken.owner.acquire() as connection:
        assert await partitions.index_closed(connection, "seen", ("id",), FRIDAY)
        assert not await partitions.index_closed(connection, "seen", ("id",), FRIDAY)


async def test_nobody_waits_behind_a_long_reader_for_an_index_that_is_built_again(
    broken: Pools, database_url: str
) -> None:
    read = "SET lock_timeout = '1s'; SELECT FROM seen"
    async with broken.owner.acquire() as reader, broken.owner.acquire() as connection:
        async with reader.transaction():
            await reader.fetch("SELECT FROM seen")
            indexing = asyncio.create_task(partitions.index_closed(connection, "seen", ("id",), FRIDAY))
            await until_a_lock_is_waited_for(database_url)
            told = await asyncio.gather(broken.owner.execute(read), return_exceptions=True)
        assert await indexing
    assert told == ["SELECT 0"]


async def test_a_drop_waits_for_nobody_for_long(pools: Pools) -> None:
    async with pools.owner.acquire() as connection:
        await partitions.ensure(connection, MONDAY, FRIDAY)
    async with pools.owner.acquire() as reader, reader.transaction():
        await reader.fetch("SELECT * FROM seen")
        async with pools.owner.acquire() as connection:
            with pytest.raises(asyncpg.LockNotAvailableError):
                await partitions.drop(connection, "seen", FRIDAY)
    async with pools.owner.acquire() as connection:
        assert await partitions.drop(connection, "seen", FRIDAY) == 4
