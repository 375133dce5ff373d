"""I4: one process serves, whatever dies; a newcomer outwaits one that may not know that it has lost."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
import pytest
from waiting import PATIENCE_S, until

from adserve.database import replica_lock
from adserve.database.embedded import Embedded
from adserve.database.migrate import migrate
from adserve.database.pools import open_pools
from adserve.database.refusal import DatabaseRefused
from adserve.database.replica_lock import Serving, ServingLock

GRACE_S = 600.0
GRACE_MS = 600_000


class WallClock:
    """Runs ahead by what a test lets pass; beside GRACE_S, the time that really passes is nothing."""

    def __init__(self) -> None:
        self.ahead_ms = 0

    def __call__(self) -> int:
        return time.time_ns() // 1_000_000 + self.ahead_ms

    async def pass_by(self, url: str, seconds: float) -> None:
        """For PostgreSQL too, whose own clock cannot be moved: there, all that it has seen is so much longer ago."""
        connection = await asyncpg.connect(url)
        await connection.execute(
            "UPDATE adserve.serving SET heartbeat_at = heartbeat_at - make_interval(secs => $1::float8)",
            seconds,
        )
        await connection.close()
        self.ahead_ms += round(seconds * 1_000)


@pytest.fixture
def now_ms() -> WallClock:
    return WallClock()


@pytest.fixture(autouse=True)
def _lock_is_patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """That a connection is dead may come to PostgreSQL's notice as late as it likes."""
    monkeypatch.setattr(replica_lock, "PATIENCE_S", PATIENCE_S)


@pytest.fixture
def impatient(_lock_is_patient: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """For those who are to be refused."""
    monkeypatch.setattr(replica_lock, "PATIENCE_S", 0.2)


def make(url: str, home: Path, *, grace_s: float = GRACE_S, holder: UUID | None = None) -> ServingLock:
    home.mkdir(exist_ok=True)
    return ServingLock(url, home, holder or uuid4(), grace_s=grace_s)


@asynccontextmanager
async def held(lock: ServingLock, now_ms: WallClock) -> AsyncIterator[ServingLock]:
    await lock.acquire(now_ms())
    try:
        yield lock
    finally:
        await lock.release()


async def beat(lock: ServingLock, now_ms: WallClock) -> Serving:
    """Where the lock stands afterwards."""
    with contextlib.suppress(Exception):  # the driver has many words for a lost connection
        await lock.keep(now_ms())
    return lock.state


async def beat_until(state: Serving, lock: ServingLock, now_ms: WallClock) -> None:
    async def reached() -> bool:
        return await beat(lock, now_ms) is state

    await until(reached)


async def cut(url: str) -> None:
    """Ends the connections of the holders, as a network or a crash would."""
    connection = await asyncpg.connect(url)
    await connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE application_name = 'adserve_serving' AND datname = current_database()"
    )
    await connection.close()


async def test_a_second_process_is_refused(
    database_url: str, tmp_path: Path, now_ms: WallClock, impatient: None
) -> None:
    async with held(make(database_url, tmp_path / "a"), now_ms) as holder:
        assert holder.may_serve(now_ms())
        with pytest.raises(DatabaseRefused, match="another process serves with"):
            await make(database_url, tmp_path / "a").acquire(now_ms())
        with pytest.raises(DatabaseRefused, match="another process serves from this database"):
            await make(database_url, tmp_path / "b").acquire(now_ms())
        assert holder.may_serve(now_ms())


async def test_a_data_home_that_cannot_be_is_refused_in_words(
    database_url: str, tmp_path: Path, now_ms: WallClock
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DatabaseRefused, match="choose another ADSERVE_DATA_HOME"):
        await ServingLock(database_url, tmp_path / "file", uuid4()).acquire(now_ms())


async def test_after_a_clean_release_the_next_serves_at_once(
    database_url: str, tmp_path: Path, now_ms: WallClock
) -> None:
    async with held(make(database_url, tmp_path / "a"), now_ms) as first:
        pass
    assert not first.may_serve(now_ms())
    async with held(make(database_url, tmp_path / "b"), now_ms) as second:
        assert second.may_serve(now_ms())


async def test_a_cut_connection_is_made_again_and_nobody_notices(
    database_url: str, tmp_path: Path, now_ms: WallClock, impatient: None
) -> None:
    async with held(make(database_url, tmp_path / "a"), now_ms) as holder:
        await cut(database_url)
        await beat_until(Serving.DISCONNECTED, holder, now_ms)
        assert holder.may_serve(now_ms())
        await beat_until(Serving.HOLDING, holder, now_ms)
        assert holder.may_serve(now_ms())
        with pytest.raises(DatabaseRefused):
            await make(database_url, tmp_path / "b").acquire(now_ms())


@asynccontextmanager
async def usurped(
    url: str, folder: Path, now_ms: WallClock, newcomer_grace_s: float = GRACE_S
) -> AsyncIterator[tuple[ServingLock, ServingLock]]:
    """A holder whose connection was cut, which it has not noticed, and a newcomer of another machine that has taken the lock."""
    async with held(make(url, folder / "a"), now_ms) as holder:
        await cut(url)
        async with held(make(url, folder / "b", grace_s=newcomer_grace_s), now_ms) as newcomer:
            assert holder.may_serve(now_ms())
            assert newcomer.state is Serving.WAITING
            yield holder, newcomer


async def test_a_newcomer_waits_for_a_holder_that_does_not_know_yet(
    database_url: str, tmp_path: Path, now_ms: WallClock
) -> None:
    async with usurped(database_url, tmp_path, now_ms) as (holder, newcomer):
        waited_s = 0.0
        while not newcomer.may_serve(now_ms()):
            assert waited_s <= GRACE_S
            await now_ms.pass_by(database_url, GRACE_S / 20)
            waited_s += GRACE_S / 20
            await beat(newcomer, now_ms)
            assert not (holder.may_serve(now_ms()) and newcomer.may_serve(now_ms()))
        assert waited_s > GRACE_S / 2
        await beat_until(Serving.LOST, holder, now_ms)
        assert not holder.may_serve(now_ms())


async def test_control_a_newcomer_that_does_not_wait_serves_beside_the_holder(
    database_url: str, tmp_path: Path, now_ms: WallClock
) -> None:
    async with usurped(database_url, tmp_path, now_ms, GRACE_S / 5) as (holder, newcomer):
        await now_ms.pass_by(database_url, GRACE_S / 2)
        await beat(newcomer, now_ms)
        assert holder.may_serve(now_ms())
        assert newcomer.may_serve(now_ms())


async def test_without_postgresql_it_serves_for_the_grace_only(
    database_url: str, tmp_path: Path, now_ms: WallClock
) -> None:
    """Nobody beats: as long as that lasts, the lock cannot be known to be ours."""
    lock, acquired_ms = make(database_url, tmp_path / "a"), now_ms()
    await lock.acquire(acquired_ms)
    assert lock.may_serve(acquired_ms + GRACE_MS - 1)
    assert not lock.may_serve(acquired_ms + GRACE_MS)
    await lock.release()


async def test_one_that_comes_back_after_another_has_served_never_serves_again(
    database_url: str, tmp_path: Path, now_ms: WallClock
) -> None:
    async with usurped(database_url, tmp_path, now_ms) as (holder, other):
        await now_ms.pass_by(database_url, GRACE_S)
        assert await beat(other, now_ms) is Serving.HOLDING
        await other.release()
        await beat_until(Serving.LOST, holder, now_ms)
        assert not holder.may_serve(now_ms())


async def test_one_that_comes_back_late_to_an_untouched_lock_serves_again(
    own_server: Embedded, tmp_path: Path, now_ms: WallClock
) -> None:
    migrate(own_server.url, lambda _: None)
    async with held(make(own_server.url, tmp_path / "a"), now_ms) as holder:
        await own_server.stop()
        await beat_until(Serving.DISCONNECTED, holder, now_ms)
        now_ms.ahead_ms += GRACE_MS
        assert not holder.may_serve(now_ms())
        await own_server.hold_or_join()
        await beat_until(Serving.HOLDING, holder, now_ms)
        assert holder.may_serve(now_ms())


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
    database_url: str, tmp_path: Path, now_ms: WallClock
) -> None:
    kill_a_holder(database_url, tmp_path / "a")
    async with held(make(database_url, tmp_path / "a"), now_ms) as lock:
        assert lock.may_serve(now_ms())


async def test_another_machine_cannot_know_and_waits(
    database_url: str, tmp_path: Path, now_ms: WallClock
) -> None:
    kill_a_holder(database_url, tmp_path / "a")
    async with held(make(database_url, tmp_path / "b"), now_ms) as lock:
        assert not lock.may_serve(now_ms())
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
        async with held(make(url, home, holder=holder), WallClock()) as lock:
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
