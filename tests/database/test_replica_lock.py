"""I4: one process serves, whatever dies; a newcomer outwaits one that may not know that it has lost."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
import pytest

from adserve.database.embedded import Embedded
from adserve.database.migrate import migrate
from adserve.database.pools import open_pools
from adserve.database.refusal import DatabaseRefused
from adserve.database.replica_lock import Serving, ServingLock

GRACE_S = 1.5


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


def make(url: str, home: Path, *, grace_s: float = GRACE_S, holder: UUID | None = None) -> ServingLock:
    home.mkdir(exist_ok=True)
    return ServingLock(url, home, holder or uuid4(), grace_s=grace_s)


async def keep(lock: ServingLock, beat_s: float) -> None:
    while True:
        await asyncio.sleep(beat_s)
        with contextlib.suppress(DatabaseRefused, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            await lock.keep(wall_ms())


@asynccontextmanager
async def kept(lock: ServingLock, *, beat_s: float = 0.05) -> AsyncIterator[ServingLock]:
    await lock.acquire(wall_ms())
    task = asyncio.create_task(keep(lock, beat_s))
    try:
        yield lock
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await lock.release()


async def until(condition: Callable[[], bool], seconds: float = 10) -> float:
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, "waited in vain"
        await asyncio.sleep(0.01)
    return time.monotonic() - began


async def cut(url: str) -> None:
    """Ends the connections of the holders, as a network or a crash would."""
    connection = await asyncpg.connect(url)
    await connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE application_name = 'adserve_serving' AND datname = current_database()"
    )
    await connection.close()


def serves(lock: ServingLock) -> bool:
    return lock.may_serve(wall_ms())


async def test_a_second_process_is_refused(database_url: str, tmp_path: Path) -> None:
    async with kept(make(database_url, tmp_path / "a")) as holder:
        assert serves(holder)
        with pytest.raises(DatabaseRefused, match="another process serves with"):
            await make(database_url, tmp_path / "a").acquire(wall_ms())
        with pytest.raises(DatabaseRefused, match="another process serves from this database"):
            await make(database_url, tmp_path / "b").acquire(wall_ms())
        assert serves(holder)


async def test_after_a_clean_release_the_next_serves_at_once(database_url: str, tmp_path: Path) -> None:
    async with kept(make(database_url, tmp_path / "a")) as first:
        pass
    assert not serves(first)
    async with kept(make(database_url, tmp_path / "b")) as second:
        assert serves(second)


async def test_a_cut_connection_is_made_again_and_nobody_notices(database_url: str, tmp_path: Path) -> None:
    async with kept(make(database_url, tmp_path / "a")) as holder:
        await cut(database_url)
        await until(lambda: holder.state is Serving.DISCONNECTED or not serves(holder))
        assert serves(holder)
        await until(lambda: holder.state is Serving.HOLDING)
        assert serves(holder)
        with pytest.raises(DatabaseRefused):
            await make(database_url, tmp_path / "b").acquire(wall_ms())


@asynccontextmanager
async def usurped(
    url: str, folder: Path, newcomer_grace_s: float
) -> AsyncIterator[tuple[ServingLock, ServingLock]]:
    """A holder whose connection was cut, and a newcomer of another machine that was quicker to take the lock."""
    async with kept(make(url, folder / "a"), beat_s=0.5) as holder:
        await cut(url)
        async with kept(make(url, folder / "b", grace_s=newcomer_grace_s)) as newcomer:
            yield holder, newcomer


async def test_a_newcomer_waits_for_a_holder_that_does_not_know_yet(
    database_url: str, tmp_path: Path
) -> None:
    async with usurped(database_url, tmp_path, GRACE_S) as (holder, newcomer):
        assert serves(holder)
        assert newcomer.state is Serving.WAITING
        both = False

        def handed_over() -> bool:
            nonlocal both
            both = both or (serves(holder) and serves(newcomer))
            return serves(newcomer)

        assert await until(handed_over) > GRACE_S / 2
        assert not both
        assert holder.state is Serving.LOST
        assert not serves(holder)


async def test_control_a_newcomer_that_does_not_wait_serves_beside_the_holder(
    database_url: str, tmp_path: Path
) -> None:
    async with usurped(database_url, tmp_path, 0.3) as (holder, newcomer):
        await until(lambda: serves(newcomer) or not serves(holder))
        assert serves(holder)
        assert serves(newcomer)


async def test_without_postgresql_it_serves_for_the_grace_only(database_url: str, tmp_path: Path) -> None:
    lock = make(database_url, tmp_path / "a")
    await lock.acquire(wall_ms())
    held_since = time.monotonic()
    # Nobody beats: as long as that lasts, the lock cannot be known to be ours.
    await until(lambda: not serves(lock))
    assert GRACE_S - 0.1 < time.monotonic() - held_since < GRACE_S + 0.5
    await lock.release()


async def test_one_that_comes_back_after_another_has_served_never_serves_again(
    database_url: str, tmp_path: Path
) -> None:
    async with kept(make(database_url, tmp_path / "a"), beat_s=2.5) as holder:
        await cut(database_url)
        async with kept(make(database_url, tmp_path / "b")) as other:
            await until(lambda: serves(other))
        await until(lambda: holder.state is Serving.LOST)
        assert not serves(holder)


async def test_one_that_comes_back_late_to_an_untouched_lock_serves_again(
    own_server: Embedded, tmp_path: Path
) -> None:
    migrate(own_server.url, lambda _: None)
    async with kept(make(own_server.url, tmp_path / "a")) as holder:
        await own_server.stop()
        await until(lambda: not serves(holder))
        assert holder.state is Serving.DISCONNECTED
        await own_server.hold_or_join()
        await until(lambda: serves(holder))


HOLD_UNTIL_KILLED = """
import asyncio, sys, time
from pathlib import Path
from uuid import uuid4
from adserve.database.replica_lock import ServingLock

async def main():
    lock = ServingLock(sys.argv[1], Path(sys.argv[2]), uuid4())
    await lock.acquire(time.time_ns() // 1_000_000)
    print("holding", flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


def kill_a_holder(url: str, home: Path) -> None:
    home.mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", HOLD_UNTIL_KILLED, url, str(home)], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"holding\n"
        os.kill(process.pid, signal.SIGKILL)


async def test_a_restart_after_kill_9_on_the_same_machine_serves_at_once(
    database_url: str, tmp_path: Path
) -> None:
    kill_a_holder(database_url, tmp_path / "a")
    async with kept(make(database_url, tmp_path / "a", grace_s=300)) as lock:
        assert serves(lock)


async def test_another_machine_cannot_know_and_waits(database_url: str, tmp_path: Path) -> None:
    kill_a_holder(database_url, tmp_path / "a")
    async with kept(make(database_url, tmp_path / "b", grace_s=300)) as lock:
        assert not serves(lock)
        assert lock.state is Serving.WAITING


LEFT_RUNNING = "INSERT INTO counter_checkpoints (taken_at, part, parts, payload) VALUES (now(), 0, 1, '')"
BLOCK = "LOCK TABLE counter_checkpoints IN EXCLUSIVE MODE"
STORED = "SELECT count(*) FROM counter_checkpoints"
WAITS = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'counter_checkpoints'::regclass"


async def stored_after(url: str, home: Path, *, ended: bool) -> int:
    """How much a process stores that does not know yet that another has taken its place; the statements of one that was killed are the
    same to PostgreSQL until it notices."""
    other, holder = uuid4(), uuid4()
    former, pools = await open_pools(url, holder=other), await open_pools(url, holder=holder)
    blocker = await asyncpg.connect(url, server_settings={"search_path": "adserve"})
    try:
        async with kept(make(url, home, holder=holder)) as lock:
            async with blocker.transaction():
                await blocker.execute(BLOCK)
                left = asyncio.create_task(former.recorder.execute(LEFT_RUNNING))
                while not await blocker.fetchval(WAITS):  # noqa: ASYNC110 - seen from outside
                    await asyncio.sleep(0.01)
                ours = asyncio.create_task(pools.recorder.fetchval("SELECT pg_sleep(0.2)"))
                if ended:
                    await lock.end_others()
                await ours
            await asyncio.gather(left, return_exceptions=True)
            stored: int = await blocker.fetchval(STORED)
            return stored
    finally:
        await blocker.close()
        former.terminate()
        pools.terminate()


async def test_what_an_earlier_holder_left_running_never_commits(database_url: str, tmp_path: Path) -> None:
    assert await stored_after(database_url, tmp_path / "a", ended=True) == 0


async def test_control_what_nobody_ends_commits_later(database_url: str, tmp_path: Path) -> None:
    assert await stored_after(database_url, tmp_path / "a", ended=False) == 1


async def test_only_a_holder_ends_what_others_do(database_url: str, tmp_path: Path) -> None:
    with pytest.raises(ConnectionError):
        await make(database_url, tmp_path / "a").end_others()
