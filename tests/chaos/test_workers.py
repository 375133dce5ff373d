"""`adserve serve --workers`: several processes on one port that look like one."""

import asyncio
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
from live import Live, listens
from redis_servers import RedisServer, needs_redis

CALLS = re.compile(r'^adserve_http_requests_total\{operation="healthz",status="200"\} (\S+)', re.MULTILINE)


@pytest.fixture
def redis_url() -> Iterator[str]:
    server = RedisServer()
    yield server.url
    server.end()


async def get(url: str) -> str:
    """Over a connection of its own, so that any of the workers may answer."""
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return await answer.text()


async def until_workers(live: Live, alive: int) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                if f"{alive} of 2" in await get(f"{live.url}/readyz"):
                    return
            except aiohttp.ClientError:
                pass  # one of them was killed as it was about to answer
            await asyncio.sleep(0.1)


async def counted(live: Live) -> float:
    found = CALLS.search(await get(f"{live.url}/metrics"))
    return float(found[1]) if found else 0.0


def workers_of(live: Live) -> list[int]:
    children = Path(f"/proc/{live.pid}/task/{live.pid}/children").read_text().split()
    return [int(pid) for pid in children if b"--worker\0" in Path(f"/proc/{pid}/cmdline").read_bytes()]


@pytest.mark.slow
@needs_redis
async def test_two_workers_answer_for_each_other_and_a_killed_one_is_replaced(
    tmp_path: Path, database_url: str, redis_url: str
) -> None:
    live = Live(tmp_path, arguments=["--workers", "2"], database_url=database_url, redis_url=redis_url)
    live.start()
    try:
        await until_workers(live, 2)
        for _ in range(20):
            await get(f"{live.url}/healthz")
        await asyncio.sleep(1.5)  # each has told the others by now
        assert {await counted(live) for _ in range(10)} == {20.0}
        os.kill(workers_of(live)[0], signal.SIGKILL)
        await until_workers(live, 2)
        assert {await counted(live) for _ in range(10)} == {20.0}
        assert live.terminate() == 0
        assert not listens(live.port)
    finally:
        live.end()
