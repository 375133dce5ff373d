"""Midnight in UTC, and days that have no partition."""

from datetime import date

import asyncpg
import pytest
from msgspec.structs import replace
from world import NOW_MS, PRICE_MICROS, World, superuser

from adserve.database import partitions
from adserve.domain.events import Event, Outcome, Settled
from adserve.domain.money import Money
from adserve.domain.time import DAY_MS, day_of
from adserve.limits.counters import MemoryCounters
from adserve.metering.errors import JournalAway, RecorderUnavailable
from adserve.metering.pending import Pending
from adserve.metering.settle import settle

MIDNIGHT_MS = (NOW_MS // DAY_MS + 1) * DAY_MS
STORED = "SELECT count(*) FROM events WHERE issued_day = $1"


def issued(world: World, lease: int, at_ms: int, outcome: Outcome = Outcome.RECORDED) -> Event:
    ticket = world.ticket(lease, issued_at_ms=at_ms, expires_at_ms=at_ms + DAY_MS)
    return replace(world.event(ticket, outcome=outcome), received_at_ms=max(at_ms, NOW_MS))


async def make(world: World, day: date) -> None:
    async with world.pools.owner.acquire() as connection:
        await partitions.ensure(connection, day, day)


def charged(event: Event) -> Settled:
    return Settled(event.event, Outcome.RECORDED, Money(PRICE_MICROS, "USD"))


async def test_tickets_from_both_sides_of_midnight_are_settled_in_one_batch(world: World) -> None:
    lease = await world.lease(10_000)
    before, after = issued(world, lease, MIDNIGHT_MS - 1), issued(world, lease, MIDNIGHT_MS)
    before = replace(before, received_at_ms=MIDNIGHT_MS + 5)
    assert await settle(world.journal, [after, before]) == [charged(after), charged(before)]
    for day_ms in (MIDNIGHT_MS - 1, MIDNIGHT_MS):
        assert await world.fetchval(STORED, day_of(day_ms)) == 1


async def test_a_late_event_of_a_day_without_a_partition_is_not_stored_and_spoils_no_other(
    world: World,
) -> None:
    lease = await world.lease(10_000)
    old = issued(world, lease, NOW_MS - 5 * DAY_MS, Outcome.LATE)
    good = [issued(world, lease, NOW_MS) for _ in range(3)]
    settled = await settle(world.journal, [good[0], old, *good[1:]])
    assert settled == [charged(good[0]), Settled(old.event, Outcome.LATE, None), *map(charged, good[1:])]
    assert await world.fetchval("SELECT count(*) FROM events") == 3
    assert await world.fetchval("SELECT count(*) FROM quarantined_events") == 0


async def test_an_event_of_a_day_that_is_not_made_yet_waits_for_it(world: World) -> None:
    early = issued(world, await world.lease(10_000), MIDNIGHT_MS + DAY_MS)
    with pytest.raises(RecorderUnavailable, match="not made ahead"):
        await settle(world.journal, [early])
    await make(world, day_of(MIDNIGHT_MS + DAY_MS))
    assert await settle(world.journal, [early]) == [charged(early)]


async def test_what_waits_for_the_counters_waits_for_its_day_too(world: World) -> None:
    early = issued(world, await world.lease(10_000), MIDNIGHT_MS + DAY_MS, Outcome.ACCEPTED)
    await settle(world.journal, [early])
    pending = Pending(world.journal, MemoryCounters(0))
    with pytest.raises(JournalAway, match="not made ahead"):
        await pending.step(NOW_MS)
    await make(world, day_of(MIDNIGHT_MS + DAY_MS))
    await pending.step(NOW_MS)
    assert await world.fetchval("SELECT outcome FROM events") == "recorded"
    assert pending.waiting == 0


async def test_control_a_default_partition_stands_in_the_way_of_the_day_that_it_took(
    world: World, database_url: str
) -> None:
    owner = await superuser(database_url)
    for parent in ("events", "viewer_caps", "viewer_log"):
        await owner.execute(f"CREATE TABLE {parent}_rest PARTITION OF {parent} DEFAULT")
    early = issued(world, await world.lease(10_000), MIDNIGHT_MS + DAY_MS)
    assert await settle(world.journal, [early]) == [charged(early)]
    day = day_of(MIDNIGHT_MS + DAY_MS)
    with pytest.raises(asyncpg.CheckViolationError, match="default partition"):
        await partitions.ensure(owner, day, day)
    await owner.close()
