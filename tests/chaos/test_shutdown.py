"""SIGTERM answers what is in flight and hands everything over; whoever starts next knows what was counted before."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port
from live import Caller, Live, calling, furnish, listens
from traffic import books
from waiting import until

NEXT_START_S = 100.0
"""Far below the grace after an unclean end, and enough for a busy machine."""
ONE_A_DAY = {"caps": [{"scope": "campaign", "count": 1, "window_s": 86_400}]}


@pytest.fixture(scope="module")
def upstream_port() -> int:
    port: int = unused_port()
    return port


@pytest.fixture(scope="module")
def live(home: Path, fresh_database_url: str, upstream_port: int) -> Iterator[Live]:
    replica = Live(home, database_url=fresh_database_url, upstream_url=f"http://127.0.0.1:{upstream_port}")
    replica.start()
    yield replica
    replica.end()


@pytest.fixture(scope="module")
def keys(live: Live, fresh_database_url: str) -> dict[str, str]:
    return asyncio.run(furnish(live, fresh_database_url, [ONE_A_DAY]))


@pytest.fixture
async def caller(live: Live, keys: dict[str, str]) -> AsyncIterator[Caller]:
    if not live.runs:
        await asyncio.to_thread(live.start)
    async with calling(live, keys) as caller:
        yield caller


@pytest.fixture
async def superuser(fresh_database_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(fresh_database_url, server_settings={"search_path": "adserve"})
    yield connection
    await connection.close()


async def test_sigterm_answers_what_is_in_flight(
    live: Live, caller: Caller, superuser: asyncpg.Connection, upstream_port: int
) -> None:
    """An event waits for a lease that somebody has locked, a feed for its upstream; both were taken, both are answered."""
    (ticket,) = await caller.tickets("in flight")
    asked, answer_now = asyncio.Event(), asyncio.Event()

    async def slow_feed(_request: web.Request) -> web.Response:
        asked.set()
        await answer_now.wait()
        return web.json_response({"items": []})

    app = web.Application()
    app.router.add_get("/feed", slow_feed)
    feed = {"X-Adserve-Key": caller.keys["feed"], "X-Adserve-Viewer": "in flight"}
    locked = superuser.transaction()
    await locked.start()
    await superuser.execute("SELECT FROM leases FOR UPDATE")
    async with TestServer(app, port=upstream_port):
        reported = asyncio.create_task(caller.report(ticket))
        fed = asyncio.create_task(caller.call("GET", "/v1/feed/feed", key=None, **feed))
        await asked.wait()
        await until(lambda: waits_for_a_lock(superuser))
        live.signal(signal.SIGTERM)
        await until(lambda: refuses(live))
        assert not reported.done()
        assert not fed.done()
        await locked.rollback()
        answer_now.set()
        assert (await reported).body["results"][0]["outcome"] in ("recorded", "accepted")
        assert ((await fed).status, (await fed).raw) == (200, b'{"items": []}')
    assert await asyncio.to_thread(live.wait) == 0
    assert "Traceback" not in live.said


async def test_sigterm_hands_over_and_the_next_replica_starts_at_once_anywhere(
    live: Live, caller: Caller, superuser: asyncpg.Connection
) -> None:
    (shown,) = await caller.tickets("shown")
    assert await caller.rated(shown) == ["recorded"]
    await caller.tickets("promised")
    assert await caller.no_fill("shown") == await caller.no_fill("promised") == "frequency_capped"
    (spare,) = await caller.tickets("released")
    assert (await caller.call("POST", "/v1/tickets/release", {"tickets": [spare]}, "feed")).status == 200
    began_ms = time.time_ns() // 1_000_000
    assert await asyncio.to_thread(live.terminate) == 0

    assert await superuser.fetchval("SELECT count(*) FROM replicas") == 0
    assert await superuser.fetchval("SELECT count(*) FROM serving WHERE released_at IS NULL") == 0
    assert await superuser.fetchval("SELECT count(*) FROM leases WHERE frozen_at IS NULL") == 0
    assert (await books(live.database_url)).exact
    checkpoint = await superuser.fetchval("SELECT max(taken_at) FROM counter_checkpoints")
    assert checkpoint.timestamp() * 1_000 >= began_ms

    elsewhere = Live(live.home / "elsewhere", port=live.port, database_url=live.database_url)
    try:
        assert await starts_in(elsewhere) < NEXT_START_S
        assert await caller.no_fill("shown") == await caller.no_fill("promised") == "frequency_capped"
        assert len(await caller.tickets("released")) == 1
    finally:
        elsewhere.end()


async def test_after_kill_9_caps_hold_and_a_ticket_from_before_counts_if_there_is_room(
    live: Live, caller: Caller
) -> None:
    (shown,) = await caller.tickets("shown, killed")
    assert await caller.rated(shown) == ["recorded"]
    (before,) = await caller.tickets("promised, killed")
    await asyncio.to_thread(live.kill)
    assert await starts_in(live) < NEXT_START_S
    assert await caller.no_fill("shown, killed") == "frequency_capped"
    assert await caller.outcomes(shown) == ["duplicate"]
    (after,) = await caller.tickets("promised, killed")
    assert sorted(await caller.rated(before, after)) == ["over_cap", "recorded"]


async def test_what_a_killed_process_left_running_is_not_stored_behind_the_back_of_the_next(
    live: Live, caller: Caller, superuser: asyncpg.Connection
) -> None:
    """It waits for a lease that somebody has locked, and would go on as soon as that is free."""
    (before,) = await caller.tickets("left running")
    locked = superuser.transaction()
    await locked.start()
    await superuser.execute("SELECT FROM leases FOR UPDATE")
    reported = asyncio.create_task(caller.report(before))
    await until(lambda: waits_for_a_lock(superuser))
    await asyncio.to_thread(live.kill)
    await asyncio.gather(reported, return_exceptions=True)
    await starts_in(live)
    await locked.rollback()
    (after,) = await caller.tickets("left running")
    assert await caller.rated(after, before) == ["recorded", "over_cap"]


async def test_a_second_replica_is_refused(live: Live, caller: Caller, tmp_path: Path) -> None:
    for other, reason in (
        (Live(live.home, database_url=live.database_url), "another process serves with"),
        (Live(tmp_path, database_url=live.database_url), "another process serves from this database"),
    ):
        other.spawn()
        try:
            assert await asyncio.to_thread(other.wait) == 1
        finally:
            other.end()
        (message,) = [line for line in other.said.splitlines() if line.startswith("adserve: ")]
        assert reason in message
        assert message.endswith("stop it first")
    assert len(await caller.tickets("unharmed")) == 1


async def test_the_same_request_gets_the_same_answer(caller: Caller) -> None:
    first = await caller.slots("again", request="r1")
    again = await caller.slots("again", request="r1")
    assert first.body["placements"]
    assert again.body == first.body
    assert (await caller.slots("again", request="r1", max_ads=1)).status == 409


async def starts_in(live: Live) -> float:
    began = time.monotonic()
    await asyncio.to_thread(live.start)
    return time.monotonic() - began


async def waits_for_a_lock(superuser: asyncpg.Connection) -> bool:
    waiting: int = await superuser.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted")
    return waiting > 0


async def refuses(live: Live) -> bool:
    return not listens(live.port)
