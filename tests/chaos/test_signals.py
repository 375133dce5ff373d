"""Signals that come while a service starts, which may take minutes."""

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
from live import Live, calling, furnish
from redis_servers import RedisServer, needs_redis
from test_workers import workers_of
from waiting import until

ELSEWHERE = """INSERT INTO adserve.serving (holder, home, taken_at, heartbeat_at)
VALUES ($1, 'elsewhere', clock_timestamp(), clock_timestamp())"""


@pytest.fixture
def redis_url() -> Iterator[str]:
    server = RedisServer()
    yield server.url
    server.end()


def holds_back(pid: int, number: signal.Signals) -> bool:
    """Whether the process has the signal wait."""
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return bool(int(status["SigBlk"], 16) >> (number - 1) & 1)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_start_that_waits_for_an_earlier_process_ends_when_it_is_told_to(
    tmp_path: Path, database_url: str, number: signal.Signals
) -> None:
    connection = await asyncpg.connect(database_url)
    await connection.execute(ELSEWHERE, uuid4())
    await connection.close()
    live = Live(tmp_path, database_url=database_url, log_level="INFO")
    live.spawn()
    try:
        await until(lambda: "waiting until it cannot" in live.said)
        live.signal(number)
        assert await asyncio.to_thread(live.wait) == 0
        assert "Traceback" not in live.said
    finally:
        if live.runs:
            live.kill()


@pytest.mark.slow
async def test_a_pause_that_comes_before_anybody_can_hear_it_is_obeyed(
    tmp_path: Path, database_url: str
) -> None:
    live = Live(tmp_path, database_url=database_url)
    live.start()
    try:
        given = await furnish(live, database_url)
        assert live.terminate() == 0
        live.spawn()
        await until(lambda: holds_back(live.pid, signal.SIGUSR1))
        live.signal(signal.SIGUSR1)
        await until(lambda: live.listens or not live.runs)
        assert live.runs
        async with calling(live, given) as caller:
            assert await caller.no_fill("paused") == "rollout_paused"
    finally:
        live.end()


@pytest.mark.slow
@needs_redis
async def test_a_pause_that_meets_workers_as_they_start_is_not_the_end_of_all(
    tmp_path: Path, database_url: str, redis_url: str
) -> None:
    live = Live(tmp_path, arguments=["--workers", "2"], database_url=database_url, redis_url=redis_url)
    live.spawn()
    try:
        await until(lambda: len(workers_of(live)) == 2)
        await asyncio.sleep(0.1)  # the first process knows of them, and they know nothing yet
        live.signal(signal.SIGUSR1)
        await until(lambda: live.listens or not live.runs)
        assert live.runs
    finally:
        live.end()
