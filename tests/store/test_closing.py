"""Old days: their books are closed, their events leave the log, and everything is still proven."""

import asyncio
import gzip
from collections.abc import AsyncIterator
from datetime import date, timedelta
from pathlib import Path

import asyncpg
import pytest
from msgspec import structs
from waiting import PATIENCE_S, until_a_lock_is_waited_for
from world import NOW_MS, PRICE_MICROS, World, superuser

from adserve.accounting.reconciliation import Reconciliation
from adserve.database import partitions
from adserve.domain.events import Outcome
from adserve.domain.tickets import Ticket
from adserve.domain.time import DAY_MS, HOUR_MS, day_of, from_ms
from adserve.store.books import reconciled
from adserve.store.closing import Closing
from adserve.store.journal import SQL as JOURNAL
from adserve.store.journal import rows_of
from adserve.store.rollups import Rollups

OLD = day_of(NOW_MS)
TABLE = "events_20260101"
FIRST_KEPT = OLD + timedelta(days=1)
AT = from_ms(NOW_MS + 400 * DAY_MS)


@pytest.fixture
async def closing(world: World) -> AsyncIterator[Closing]:
    async with world.pools.owner.acquire() as connection:
        yield Closing(connection)


def old(world: World, lease: int) -> Ticket:
    return world.ticket(lease)


def young(world: World, lease: int) -> Ticket:
    issued_at_ms = NOW_MS + DAY_MS
    return world.ticket(lease, issued_at_ms=issued_at_ms, expires_at_ms=issued_at_ms + HOUR_MS)


async def live(world: World, *, invoiced: bool = True) -> int:
    """One lease that tickets of an old and a young day were charged to, in one batch and in two."""
    lease = await world.lease(50_000)
    both = [world.event(old(world, lease)), world.event(young(world, lease))]
    await world.journal.settle(both)
    await world.journal.settle(
        [world.event(old(world, lease)), world.event(old(world, lease), "click", Outcome.UNBILLED_KIND)]
    )
    await world.journal.settle([world.event(young(world, lease))])
    await Rollups(world.pools.recorder).compact()
    if invoiced:
        await world.issue_invoices()
    return lease


async def books(world: World) -> Reconciliation:
    return await reconciled(world.pools.analyst)


async def attached(world: World) -> list[str]:
    rows = await world.pools.owner.fetch(
        "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'events'::regclass ORDER BY 1"
    )
    return [row[0] for row in rows]


async def there(world: World) -> bool:
    return bool(await world.pools.owner.fetchval("SELECT to_regclass($1) IS NOT NULL", TABLE))


def exported(folder: Path) -> dict[str, int]:
    """How many events are in each file."""
    return {path.name: len(gzip.decompress(path.read_bytes()).splitlines()) - 1 for path in folder.iterdir()}


@pytest.mark.parametrize("fate", ["closed", "detached", "exported", "dropped"])
async def test_a_retired_day_still_proves_and_takes_no_events(
    world: World, closing: Closing, tmp_path: Path, fate: str
) -> None:
    lease = await live(world)
    before = await books(world)
    assert before.differences == ()
    assert await closing.close_before(FIRST_KEPT, AT) is None
    if fate != "closed":
        await closing.detach(AT)
        assert TABLE not in await attached(world)
    if fate == "exported":
        await closing.export_detached(tmp_path)
        assert exported(tmp_path) == {"events_20251231.csv.gz": 0, f"{TABLE}.csv.gz": 3}
    if fate == "dropped":
        await closing.drop_detached()
    assert await there(world) is (fate in ("closed", "detached"))
    after = await books(world)
    assert after.differences == ()
    assert (after.events, after.billed_micros) == (before.events, before.billed_micros)
    assert after.first_raw_day == FIRST_KEPT > before.first_raw_day

    if fate != "closed":  # while its partition is there, the database knows by itself
        await world.journal.learn_closed_days()
    answers = await world.journal.settle([world.event(old(world, lease)), world.event(young(world, lease))])
    assert [answer.outcome for answer in answers] == [Outcome.LATE, Outcome.RECORDED]
    assert answers[0].billed is None
    assert (await books(world)).events == before.events + 1
    assert (await books(world)).exact


FALSIFIED = {
    "figures": "UPDATE closing_figures SET billed_micros = billed_micros - 1 WHERE outcome = 'recorded'",
    "an entry": "UPDATE closing_entries SET billed_micros = billed_micros - 1",
    "an entry's hash": "UPDATE closing_entries SET hash = sha256('')",
    "a day": "UPDATE closed_days SET events = events + 1",
    "both alike": "UPDATE closing_entries SET events = events - 1; UPDATE closed_days SET events = events - 1 WHERE events > 0; "
    "UPDATE closing_figures SET events = events - 1 WHERE kind = 'click'; "
    "UPDATE rollups SET events = events - 1 WHERE kind = 'click'; UPDATE rollup_deltas SET events = events - 1 WHERE kind = 'click'",
    "a missing entry": "DELETE FROM closing_entries",
}


@pytest.mark.parametrize("falsified", FALSIFIED)
async def test_a_falsified_closing_is_found_when_the_events_are_gone(
    world: World, closing: Closing, database_url: str, falsified: str
) -> None:
    await live(world)
    await closing.close_before(FIRST_KEPT, AT)
    await closing.detach(AT)
    await closing.drop_detached()
    vandal = await superuser(database_url)
    with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="append-only"):
        await vandal.execute(FALSIFIED[falsified])
    await vandal.execute("SET session_replication_role = replica")  # no triggers
    await vandal.execute(FALSIFIED[falsified])
    await vandal.close()
    differences = (await books(world)).differences
    assert "2026-01-01" in {
        str(difference.key[0]) for difference in differences if "clos" in difference.check
    }


async def test_events_that_change_behind_their_closing_entry_are_found_and_not_dropped(
    world: World, closing: Closing, database_url: str
) -> None:
    await live(world)
    await closing.close_before(FIRST_KEPT, AT)
    await closing.detach(AT)
    vandal = await superuser(database_url)
    change = f"UPDATE {TABLE} SET country = 'US' WHERE kind = 'click'"  # in no sum
    with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="is closed"):
        await vandal.execute(change)
    await vandal.execute("SET session_replication_role = replica")
    await vandal.execute(change)
    await vandal.close()
    (found,) = (await books(world)).differences
    assert found.check == "closing entries: hash of the events is another"
    assert found.key[0] == "2026-01-01"
    with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="do not stand"):
        await closing.drop_detached()
    assert await there(world)


async def test_nothing_of_events_is_dropped_without_a_closing_entry(world: World, closing: Closing) -> None:
    await live(world)
    async with world.pools.owner.acquire() as connection:
        with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="retired"):
            await partitions.drop(connection, "events", FIRST_KEPT)
        with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="do not stand"):
            await connection.execute("SELECT drop_closed_day($1)", OLD)
    await closing.detach(AT)
    await closing.drop_detached()
    assert TABLE in await attached(world)


async def test_days_are_closed_in_order_and_wait_for_pending_events(world: World, closing: Closing) -> None:
    lease = await live(world)
    waiting = world.event(old(world, lease), outcome=Outcome.ACCEPTED)
    await world.journal.settle([waiting])
    assert await closing.close_before(FIRST_KEPT, AT) == f"{OLD}: events of it wait for the counters"
    assert await world.fetchval("SELECT max(day) FROM closed_days") == OLD - timedelta(days=1)

    async def judge(events: object) -> list[object]:
        return [structs.replace(waiting, outcome=Outcome.RECORDED)]

    await world.journal.settle_pending(judge, 10)
    assert await closing.close_before(FIRST_KEPT, AT) is None
    assert await world.pools.owner.fetchval("SELECT close_day($1, $2)", OLD, AT) is not None
    assert (await books(world)).exact


async def settle_on(connection: asyncpg.Connection, world: World, lease: int) -> list[str]:
    """What the event became, where that is not what it was given as."""
    rows = await connection.fetch(JOURNAL.settle, rows_of([world.event(old(world, lease))]), None)
    return [row["outcome"] for row in rows]


async def test_a_batch_on_its_way_is_waited_for(world: World, closing: Closing, database_url: str) -> None:
    lease = await live(world)
    async with world.pools.recorder.acquire() as writer, writer.transaction():
        assert await settle_on(writer, world, lease) == []
        closed = asyncio.create_task(closing.close_before(FIRST_KEPT, AT))
        await until_a_lock_is_waited_for(database_url)
        assert not closed.done()
    assert await closed is None
    assert (await books(world)).exact


async def _settled_while_closing(world: World, database_url: str, *, guarded: bool) -> list[str]:
    """A batch that has seen the day open, and comes to its partition when that is closed."""
    lease = await live(world)
    closer = await superuser(database_url)
    await closer.execute("SET ROLE adserve_owner")
    async with closer.transaction():
        await closer.execute("SELECT close_day($1, $2)", OLD, AT)
        if not guarded:
            await closer.execute(f"DROP TRIGGER closed ON {TABLE}")
        settling = asyncio.create_task(settle_on(world.pools.recorder, world, lease))
        await until_a_lock_is_waited_for(database_url)
        assert not settling.done()
    await closer.close()
    return await settling


async def test_a_batch_that_comes_while_a_day_is_closed_is_late(world: World, database_url: str) -> None:
    assert await _settled_while_closing(world, database_url, guarded=True) == ["late"]
    assert (await books(world)).exact


async def test_control_without_the_trigger_it_is_stored_behind_the_entry(
    world: World, database_url: str
) -> None:
    assert await _settled_while_closing(world, database_url, guarded=False) == []
    checks = {difference.check for difference in (await books(world)).differences}
    assert "closing entries: hash of the events is another" in checks


async def test_readers_and_writers_go_on_while_a_day_leaves(
    world: World, closing: Closing, database_url: str
) -> None:
    lease = await live(world)
    await closing.close_before(FIRST_KEPT, AT)
    async with world.pools.analyst.acquire() as reader, reader.transaction():
        events = await reader.fetchval("SELECT count(*) FROM events")
        leaving = asyncio.create_task(closing.detach(AT))
        await until_a_lock_is_waited_for(database_url)
        assert not leaving.done()
        async with asyncio.timeout(PATIENCE_S):
            (answer,) = await world.journal.settle([world.event(young(world, lease))])
        assert answer.outcome is Outcome.RECORDED
        assert await world.fetchval("SELECT count(*) FROM events") == events + 1
    await leaving
    assert TABLE not in await attached(world)


async def test_a_detaching_that_was_given_up_is_finished(world: World, closing: Closing) -> None:
    await live(world)
    await closing.close_before(FIRST_KEPT, AT)
    async with (
        world.pools.analyst.acquire() as reader,
        reader.transaction(),
        world.pools.owner.acquire() as impatient,
    ):
        await reader.fetchval("SELECT count(*) FROM events")
        await impatient.execute("SET lock_timeout = '100ms'")
        with pytest.raises(asyncpg.LockNotAvailableError):
            await impatient.execute(f"ALTER TABLE events DETACH PARTITION {TABLE} CONCURRENTLY")
    await closing.detach(AT)
    assert TABLE not in await attached(world)
    assert (await books(world)).exact


async def test_a_day_waits_for_its_invoices(world: World, closing: Closing) -> None:
    await live(world, invoiced=False)
    assert await closing.close_before(FIRST_KEPT, AT) == f"{OLD}: an invoice of it is not issued"
    await world.issue_invoices()
    assert await closing.close_before(FIRST_KEPT, AT) is None
    assert (await books(world)).exact


async def test_one_process_retires_at_a_time(world: World, closing: Closing) -> None:
    assert await closing.take_turn()
    async with world.pools.owner.acquire() as other:
        assert not await Closing(other).take_turn()


async def test_the_price_of_a_closed_day_is_in_its_entry(world: World, closing: Closing) -> None:
    await live(world)
    await closing.close_before(FIRST_KEPT, AT)
    row = await world.pools.analyst.fetchrow("SELECT * FROM closing_entries")
    assert (row["day"], row["advertiser_id"], row["campaign_id"]) == (OLD, world.advertiser, world.campaign)
    assert (row["events"], row["billed_micros"], row["currency"]) == (3, 2 * PRICE_MICROS, "USD")
    assert isinstance(row["day"], date)
