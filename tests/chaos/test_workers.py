"""`adserve serve --workers`: several processes on one port that look like one, also while PostgreSQL is away."""

import asyncio
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
from live import NO_ANSWER, Caller, Live, Postgres, furnish, listens
from redis_servers import RedisServer, needs_redis
from traffic import books
from waiting import PATIENCE_S, until

from adserve.database import embedded
from adserve.database.embedded import Embedded
from adserve.database.migrate import migrate
from adserve.simulation.caller import OUR_CLIENT

TICKETS = 40

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
    async with asyncio.timeout(PATIENCE_S):
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


def workers_of(live: Live, argument: bytes = b"--worker") -> list[int]:
    """Those that were started with the argument."""
    children = Path(f"/proc/{live.pid}/task/{live.pid}/children").read_text().split()
    return [int(pid) for pid in children if argument + b"\0" in Path(f"/proc/{pid}/cmdline").read_bytes()]


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

        async def all_count_alike() -> bool:
            return {await counted(live) for _ in range(10)} == {20.0}

        await until(all_count_alike)  # each has told the others by then
        live.signal(signal.SIGUSR1)
        os.kill(workers_of(live)[0], signal.SIGKILL)
        await until(lambda: len(workers_of(live, b"--paused")) == 1)
        await until_workers(live, 2)
        await until(all_count_alike)
        assert "Address already in use" in await refusal_of_another(live, tmp_path, database_url, redis_url)
        assert live.terminate() == 0
        assert not listens(live.port)
    finally:
        live.end()


async def refusal_of_another(live: Live, home: Path, database_url: str, redis_url: str) -> str:
    """On the same port, whose connections the kernel would deal out to both."""
    (home / "another").mkdir()
    another = Live(
        home / "another",
        live.port,
        arguments=["--workers", "2"],
        database_url=database_url,
        redis_url=redis_url,
    )
    another.spawn()
    try:
        assert await asyncio.to_thread(another.wait) == 2
        return another.said
    finally:
        another.end()


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[Embedded]:
    started = asyncio.run(embedded.start(home, lambda _: None))
    migrate(started.url, lambda _: None)
    yield started
    asyncio.run(started.stop())


async def insisted(caller: Caller, ticket: str) -> str:
    """The outcome, asked for until there is one: by whichever worker answers the connection."""
    while True:
        try:
            return (await caller.outcomes(ticket))[0]
        except NO_ANSWER:
            await asyncio.sleep(0.1)


@pytest.mark.slow
@needs_redis
async def test_two_workers_share_a_spool_through_an_outage_in_which_one_is_killed(
    home: Path, server: Embedded, redis_url: str
) -> None:
    live = Live(home, arguments=["--workers", "2"], database_url=server.url, redis_url=redis_url)
    live.start()
    try:
        await until_workers(live, 2)
        keys = await furnish(live, server.url)
        connector = aiohttp.TCPConnector(force_close=True)
        async with aiohttp.ClientSession(connector=connector, headers=OUR_CLIENT) as session:
            caller = Caller(live.url, session, keys)
            before = await books(server.url)
            tickets: list[str] = []
            while len(tickets) < TICKETS:  # each of the workers learns of the ad and takes leases by itself
                tickets += await caller.tickets(f"away-{time.monotonic_ns()}")
            Postgres(home).signal(signal.SIGSTOP)
            try:
                half = await asyncio.gather(*(insisted(caller, ticket) for ticket in tickets[::2]))
                os.kill(workers_of(live)[0], signal.SIGKILL)
                whole = await asyncio.gather(*(insisted(caller, ticket) for ticket in tickets))
            finally:
                Postgres(home).signal(signal.SIGCONT)
            assert set(half) == {"accepted"}
            assert set(whole[::2]) == {"duplicate"}, "what one of them spooled, whoever is asked knows"
            assert set(whole[1::2]) <= {"accepted", "duplicate"}
            await until_workers(live, 2)

            async def settled() -> bool:
                replies = [await caller.call("GET", f"/v1/events/{ticket}", key="feed") for ticket in tickets]
                events = [event["outcome"] for reply in replies for event in reply.body["events"]]
                return events == ["recorded"] * TICKETS

            await until(settled)
            after = await books(server.url)
            assert after.exact, after.differences
            assert after.events - before.events == TICKETS
    finally:
        live.end()
