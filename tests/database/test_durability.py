"""I1: a server that could forget, is too old or lives in another time is refused, by name."""

import time
from collections.abc import Iterator
from itertools import count

import asyncpg
import pytest
from waiting import until

from adserve.database import durability
from adserve.database.pools import Pools
from adserve.database.refusal import DatabaseRefused


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


async def test_a_safe_server_is_accepted(pools: Pools) -> None:
    async with pools.recorder.acquire() as connection:
        await durability.check(connection, wall_ms)


@pytest.mark.parametrize("setting", ["fsync", "full_page_writes", "synchronous_commit"])
async def test_control_a_server_that_could_forget_is_refused_by_name(
    connection: asyncpg.Connection, setting: str
) -> None:
    await durability.check(connection, wall_ms)
    await connection.execute(f"ALTER SYSTEM SET {setting} = off")
    await connection.execute("SELECT pg_reload_conf()")

    async def is_off() -> bool:
        return bool(await connection.fetchval(f"SHOW {setting}") == "off")

    await until(is_off)
    with pytest.raises(DatabaseRefused, match=rf"has {setting} off.*ALTER SYSTEM RESET {setting};"):
        await durability.check(connection, wall_ms)


async def test_control_a_database_of_a_safe_server_may_still_be_unsafe(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    await connection.execute(
        f"ALTER DATABASE {await connection.fetchval('SELECT current_database()')} SET synchronous_commit = off"
    )
    await connection.close()
    connection = await asyncpg.connect(database_url)
    with pytest.raises(DatabaseRefused, match="synchronous_commit off"):
        await durability.check(connection, wall_ms)
    await connection.close()


async def test_a_standby_is_refused(pools: Pools) -> None:
    """Which says of itself what a read-only transaction says."""
    async with pools.recorder.acquire() as connection, connection.transaction(readonly=True):
        with pytest.raises(DatabaseRefused, match="has to name the primary"):
            await durability.check(connection, wall_ms)


@pytest.mark.parametrize(("offset_ms", "side"), [(400, "behind"), (-400, "ahead of")])
async def test_a_clock_of_another_time_is_refused(pools: Pools, offset_ms: int, side: str) -> None:
    async with pools.recorder.acquire() as connection:
        await durability.check(connection, lambda: wall_ms() + offset_ms // 4)
        with pytest.raises(DatabaseRefused, match=rf"\d{{3}} ms {side} ours.*synchronise"):
            await durability.check(connection, lambda: wall_ms() + offset_ms)


async def test_slow_round_trips_do_not_look_like_another_time(pools: Pools) -> None:
    """All but one of the samples take two seconds on the way there only, which looks like an offset of a second."""

    def clock() -> Iterator[int]:
        for call in count():
            yield wall_ms() - (2_000 if call % 2 == 0 and call != 6 else 0)

    ticks = clock()
    async with pools.recorder.acquire() as connection:
        assert abs(await durability.clock_offset_ms(connection, lambda: next(ticks))) < 250


async def test_an_old_server_is_refused(pools: Pools, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durability, "OLDEST_VERSION", 990_000)
    async with pools.recorder.acquire() as connection:
        with pytest.raises(DatabaseRefused, match="too old: 99 or later"):
            await durability.check(connection, wall_ms)
