"""A spool that is left behind by a killed replica, and one that is full."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from live import Caller, Live, Postgres, calling, furnish
from spooling import event
from traffic import books
from waiting import until

from adserve.database import embedded
from adserve.database.embedded import Embedded
from adserve.database.migrate import migrate
from adserve.database.pools import open_pool
from adserve.domain.events import Outcome
from adserve.metering.errors import RecorderUnavailable
from adserve.metering.settle import settle
from adserve.store.journal import Journal

TICKETS = 30
SPOOL_BYTES = 65_536
ONE_A_DAY = {"caps": [{"scope": "campaign", "count": 1, "window_s": 86_400}]}


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[Embedded]:
    started = asyncio.run(embedded.start(home, lambda _: None))
    migrate(started.url, lambda _: None)
    yield started
    asyncio.run(started.stop())


@pytest.fixture(scope="module")
def live(home: Path, server: Embedded) -> Iterator[Live]:
    replica = Live(home, database_url=server.url, spool_max_bytes=SPOOL_BYTES)
    replica.start()
    yield replica
    replica.end()


@pytest.fixture(scope="module")
def keys(live: Live, server: Embedded) -> dict[str, str]:
    return asyncio.run(furnish(live, server.url, [ONE_A_DAY]))


@pytest.fixture
async def caller(live: Live, keys: dict[str, str]) -> AsyncIterator[Caller]:
    async with calling(live, keys) as caller:
        yield caller


async def tickets_of(caller: Caller, name: str, count: int = TICKETS) -> list[str]:
    return [ticket for nth in range(count) for ticket in await caller.tickets(f"{name}-{nth}")]


async def settled(caller: Caller) -> bool:
    status, parts = await caller.readiness()
    return status == 200 and bool(parts["database"]["ok"]) and parts["spool"]["detail"] == "empty"


async def are_recorded(caller: Caller, tickets: list[str]) -> bool:
    """What an earlier start has counted is judged again first, and waits for that beside the spool."""
    return await outcomes_of(caller, tickets) == [["recorded"]] * len(tickets)


async def outcomes_of(caller: Caller, tickets: list[str]) -> list[Any]:
    replies = [await caller.call("GET", f"/v1/events/{ticket}", key="feed") for ticket in tickets]
    return [[event["outcome"] for event in reply.body["events"]] for reply in replies]


async def test_a_spool_that_a_killed_replica_left_settles_once_and_counts_at_once(
    live: Live, caller: Caller, server: Embedded, home: Path
) -> None:
    before = await books(server.url)
    tickets = await tickets_of(caller, "dead")
    Postgres(home).signal(signal.SIGSTOP)
    try:
        assert await caller.outcomes(*tickets) == ["accepted"] * TICKETS
        live.kill()
    finally:
        Postgres(home).signal(signal.SIGCONT)
    await asyncio.to_thread(live.start)
    assert [await caller.no_fill(f"dead-{nth}") for nth in range(3)] == ["frequency_capped"] * 3
    await until(lambda: settled(caller))
    await until(lambda: are_recorded(caller, tickets))
    assert await caller.outcomes(*tickets) == ["duplicate"] * TICKETS
    after = await books(server.url)
    assert after.exact, after.differences
    assert after.events - before.events == TICKETS


@pytest.mark.parametrize("outcome", [Outcome.RECORDED, Outcome.ACCEPTED])
async def test_a_batch_that_the_server_hangs_on_is_given_up_in_time(
    live: Live, server: Embedded, home: Path, outcome: Outcome
) -> None:
    pool = await open_pool(server.url, "adserve_recorder", size=1)
    journal = Journal(pool)
    await journal.count_pending()
    Postgres(home).signal(signal.SIGSTOP)
    try:
        with pytest.raises(RecorderUnavailable):
            async with asyncio.timeout(20):  # far below what the driver would wait
                await settle(journal, [event(1, outcome=outcome)], timeout_s=0.5)
    finally:
        Postgres(home).signal(signal.SIGCONT)
        pool.terminate()


async def test_a_full_spool_refuses_and_loses_nothing_that_it_took(
    caller: Caller, server: Embedded, home: Path
) -> None:
    tickets = await tickets_of(caller, "full", 200)
    taken: list[str] = []
    Postgres(home).signal(signal.SIGSTOP)
    try:
        for ticket in tickets:
            reply = await caller.report(ticket)
            if reply.status != 200:
                break
            assert reply.body["results"][0]["outcome"] == "accepted"
            taken.append(ticket)
        assert reply.status == 503, (len(taken), reply)
        assert reply.headers["Retry-After"] == "10"
        assert len(taken) > TICKETS

        async def says_so() -> bool:
            status, parts = await caller.readiness()
            return (
                status == 503 and not parts["spool"]["ok"] and parts["spool"]["detail"].startswith("full: ")
            )

        await until(says_so)
    finally:
        Postgres(home).signal(signal.SIGCONT)
    await until(lambda: settled(caller))
    await until(lambda: are_recorded(caller, taken))
    rest = tickets[len(taken) :]
    assert await caller.rated(*rest) == ["recorded"] * len(rest)
    figures = (await caller.call("GET", "/metrics", key=None)).raw.decode()
    assert "adserve_spool_events 0.0" in figures
