"""The power goes, or the disk is full: what was acknowledged is on the disk."""

import asyncio
import random
import signal
from collections.abc import AsyncIterator, Iterator

import aiohttp
import asyncpg
import pytest
from disk import Disk, own_disk
from flood import SURELY_LOST_S, Flood, amid
from live import Postgres
from sizes import record, sized, whole_run
from stacked import Stack
from traffic import books, early_front

from adserve.database.refusal import DatabaseRefused

pytestmark = [whole_run, pytest.mark.slow]

CUTS = sized(20, 1)
SPOOL_CUTS = sized(20, 1)
SPOOLED_A_CUT = 200
IMPRESSIONS_A_CUT = 500
FULL_DISKS = sized(5, 1)
REFUSED_CALLS = 5
"""So many calls are left without an answer before there is room on the disk again."""


@pytest.fixture(scope="module")
def disk() -> Iterator[Disk]:
    with own_disk() as made:
        yield made


@pytest.fixture(scope="module")
def stack(disk: Disk) -> Iterator[Stack]:
    stack = Stack(disk.home)
    try:
        yield stack
    finally:
        stack.end()


@pytest.fixture
async def flood(stack: Stack) -> AsyncIterator[Flood]:
    async with aiohttp.ClientSession() as session:
        flood = Flood(session, stack.live.url, stack.keys["feed"], stack.name_of, random.Random(1))
        yield flood
        stack.known |= flood.sent


async def test_nothing_acknowledged_is_lost_when_the_disk_is_full_and_it_resumes_by_itself(
    flood: Flood, stack: Stack, disk: Disk
) -> None:

    async def fill_and_empty() -> None:
        refused = flood.unanswered
        disk.fill()
        while flood.unanswered < refused + REFUSED_CALLS:  # noqa: ASYNC110 - counted by the clients
            await asyncio.sleep(0.02)
        disk.make_room()

    keeping = asyncio.create_task(stack.server.keep())
    try:
        rounds = await amid(flood, FULL_DISKS * IMPRESSIONS_A_CUT, [fill_and_empty] * FULL_DISKS)
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
    verdict = await flood.verdict(stack.server.url, stack.known)
    record("disk full", rounds=rounds, calls_without_answer=flood.unanswered, **verdict._asdict())
    assert verdict.clean, verdict
    assert verdict.acknowledged == verdict.stored
    assert (await books(stack.server.url)).exact


async def test_control_a_front_that_answers_early_loses_when_the_disk_is_full(
    flood: Flood, stack: Stack, disk: Disk
) -> None:
    keeping = asyncio.create_task(stack.server.keep())
    async with early_front(stack.live.url) as url:
        flood.events_url = url

        async def fill_and_empty() -> None:
            disk.fill()
            await asyncio.sleep(3.0)
            disk.make_room()

        await amid(flood, IMPRESSIONS_A_CUT, [fill_and_empty])
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
    verdict = await flood.verdict(stack.server.url, stack.known, SURELY_LOST_S)
    record("disk full", control_lost=verdict.lost)
    assert verdict.lost > 0


async def test_nothing_acknowledged_is_lost_through_power_cuts(
    flood: Flood, stack: Stack, disk: Disk
) -> None:

    async def cut() -> None:
        await asyncio.sleep(random.uniform(0, 0.5))
        await stack.lose_power(disk)
        await stack.start_again()

    rounds = await amid(flood, CUTS * IMPRESSIONS_A_CUT, [cut] * CUTS)
    verdict = await flood.verdict(stack.server.url, stack.known)
    record("power cuts", rounds=rounds, calls_without_answer=flood.unanswered, **verdict._asdict())
    assert verdict.clean, verdict
    assert verdict.acknowledged == verdict.stored
    assert (await books(stack.server.url)).exact


async def test_what_waits_in_the_spool_outlives_power_cuts(flood: Flood, stack: Stack, disk: Disk) -> None:

    async def stop_postgres_and_cut() -> None:
        Postgres(stack.home).signal(signal.SIGSTOP)
        before = flood.accepted
        while flood.accepted < before + SPOOLED_A_CUT:  # noqa: ASYNC110 - counted by the clients
            await asyncio.sleep(0.02)
        await stack.lose_power(disk)
        await stack.start_again()

    rounds = await amid(flood, SPOOL_CUTS * IMPRESSIONS_A_CUT, [stop_postgres_and_cut] * SPOOL_CUTS)
    verdict = await flood.verdict(stack.server.url, stack.known)
    record(
        "power cuts with spooled events",
        rounds=rounds,
        accepted=flood.accepted,
        calls_without_answer=flood.unanswered,
        **verdict._asdict(),
    )
    assert verdict.clean, verdict
    assert verdict.acknowledged == verdict.stored
    assert (await books(stack.server.url)).exact


async def test_control_a_front_that_answers_early_loses_what_was_to_be_spooled(
    flood: Flood, stack: Stack, disk: Disk
) -> None:
    async with early_front(stack.live.url) as url:
        flood.events_url = url

        async def stop_postgres_and_cut() -> None:
            Postgres(stack.home).signal(signal.SIGSTOP)
            before = len(flood.acknowledged)
            while len(flood.acknowledged) < before + SPOOLED_A_CUT:  # noqa: ASYNC110 - counted by the clients
                await asyncio.sleep(0.02)
            await stack.lose_power(disk)
            await stack.start_again()

        await amid(flood, IMPRESSIONS_A_CUT, [stop_postgres_and_cut])
    verdict = await flood.verdict(stack.server.url, stack.known, SURELY_LOST_S)
    record("power cuts with spooled events", control_lost=verdict.lost)
    assert verdict.lost > 0


async def test_control_without_fsync_a_power_cut_loses_what_was_acknowledged(
    flood: Flood, stack: Stack, disk: Disk
) -> None:
    """Behind the back of a replica that has looked at its start."""
    owner = await asyncpg.connect(stack.server.url)
    await owner.execute("ALTER SYSTEM SET fsync = off")
    await owner.execute("SELECT pg_reload_conf()")
    await owner.close()

    async def cut() -> None:
        await stack.lose_power(disk)
        flood.stopped = True

    await amid(flood, 2 * IMPRESSIONS_A_CUT, [cut])
    (disk.home / "postgres" / "cluster" / "postgresql.auto.conf").write_text("")
    try:
        await stack.start_again()
        lost = (await flood.verdict(stack.server.url, stack.known, SURELY_LOST_S)).lost
    except DatabaseRefused:
        lost = len(flood.acknowledged)  # nothing of it can be read any more
    record("power cuts", control_lost=lost, control_acknowledged=len(flood.acknowledged))
    assert lost > 0
