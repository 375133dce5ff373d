"""kill -9, of a replica and of its PostgreSQL, in the middle of traffic: what was acknowledged is there, once."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from live import Caller, Live, Postgres, calling, furnish
from traffic import Acknowledged, Traffic, books, early_front

TICKETS = 240
CAMPAIGNS = ({}, {"name": "Evening roast"}, {"name": "Cold brew"})


@pytest.fixture(scope="module")
def live(home: Path) -> Iterator[Live]:
    replica = Live(home)
    replica.start()
    yield replica
    replica.end()


@pytest.fixture(scope="module")
def keys(live: Live) -> dict[str, str]:
    return asyncio.run(furnish(live, live.database_url, CAMPAIGNS))


@pytest.fixture
async def caller(live: Live, keys: dict[str, str]) -> AsyncIterator[Caller]:
    async with calling(live, keys) as caller:
        yield caller


async def kill_the_service(live: Live) -> None:
    live.kill()
    await asyncio.sleep(0.1)
    await asyncio.to_thread(live.start)


async def terminate_the_service(live: Live) -> None:
    assert await asyncio.to_thread(live.terminate) == 0
    await asyncio.to_thread(live.start)


async def kill_postgres(live: Live) -> None:
    """All of its processes at once. The replica is to start it again by itself."""
    Postgres(live.home).signal(signal.SIGKILL)


async def kill_postgres_again_and_again(live: Live) -> None:
    """While it is started, and while it recovers."""
    for _ in range(5):
        await kill_postgres(live)
        await asyncio.sleep(0.25)


Kill = Callable[[Live], object]
KILLS = [kill_the_service, terminate_the_service, kill_postgres, kill_postgres_again_and_again]


async def killed_in_the_middle(live: Live, kill: Kill, traffic: Traffic) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(traffic.run(TICKETS))
        while len(traffic.acknowledged) < TICKETS // 2:  # noqa: ASYNC110 - it is looked at from outside
            await asyncio.sleep(0.001)
        await kill(live)


@pytest.mark.parametrize("kill", KILLS)
async def test_what_was_acknowledged_is_there_once_and_billed_once(
    live: Live, caller: Caller, kill: Kill
) -> None:
    before = await books(live.database_url)
    traffic = Traffic(caller, live.url)
    await killed_in_the_middle(live, kill, traffic)
    assert traffic.disturbed > 0
    kept = await traffic.kept()
    assert lost(kept) == []
    assert traffic.differing(kept) == []
    after = await books(live.database_url)
    assert after.exact, after.differences
    assert after.events - before.events == len(kept)
    billed = after.billed_micros["USD"] - before.billed_micros.get("USD", 0)
    assert billed == sum(events[0].billed_micros for events in kept.values()) > 0


async def test_control_a_front_that_acknowledges_early_loses_events(live: Live, caller: Caller) -> None:
    """By a kill of the service: what is passed on while PostgreSQL is gone goes to the spool."""
    async with early_front(live.url) as url:
        traffic = Traffic(caller, url)
        await killed_in_the_middle(live, kill_the_service, traffic)
    assert lost(await traffic.kept()) != []


def lost(kept: dict[str, list[Acknowledged]]) -> list[str]:
    return [ticket for ticket, events in kept.items() if not events]
