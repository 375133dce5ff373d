import asyncio
import random

import asyncpg
from waiting import happens, until
from world import NOW_MS, PRICE_MICROS, World, superuser

from adserve.database.pools import Pools, Sizes, open_pools
from adserve.domain.events import Event, Outcome
from adserve.metering.errors import JournalContended, JournalRejected
from adserve.store.books import reconciled
from adserve.store.journal import Journal

CLIENTS = 16
BATCH = 100
QUICK_DEADLOCKS = """
DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET deadlock_timeout = ''20ms''', current_database()); END $$"""

LOCK = "SELECT FROM leases WHERE id = $1 FOR NO KEY UPDATE"
WAITING = "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%freeze_leases%'"


class Race:
    """Sixteen clients that each send the same events at once, in an order of their own."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        self.deadlocks = 0

    async def run(self, pools: Pools, events: list[Event]) -> None:
        await asyncio.gather(
            *(self._client(Journal(pools.recorder), events, seed) for seed in range(CLIENTS))
        )

    async def _client(self, journal: Journal, events: list[Event], seed: int) -> None:
        shuffled = random.Random(seed).sample(events, len(events))
        for start in range(0, len(shuffled), BATCH):
            try:
                settled = await journal.settle(shuffled[start : start + BATCH])
            except JournalContended:
                self.deadlocks += 1
            else:
                self.outcomes += [one.outcome for one in settled]


async def race(database_url: str, events: list[Event]) -> Race:
    pools = await open_pools(database_url, sizes=Sizes(recorder=CLIENTS))
    try:
        await asyncio.gather(
            *(pools.recorder.execute("SELECT pg_sleep(0.1)") for _ in range(CLIENTS))
        )  # connect
        racing = Race()
        await racing.run(pools, events)
        return racing
    finally:
        await pools.close()


async def thousand(world: World) -> list[Event]:
    """1,000 tickets on ten leases: 600 impressions to be billed, 400 other events."""
    leases = [await world.lease(100 * PRICE_MICROS) for _ in range(10)]
    tickets = [world.ticket(leases[nth % 10]) for nth in range(1_000)]
    return [
        world.event(ticket) if nth < 600 else world.event(ticket, "view", Outcome.UNBILLED_KIND)
        for nth, ticket in enumerate(tickets)
    ]


async def test_sixteen_clients_with_the_same_tickets_bill_each_once(world: World, database_url: str) -> None:
    racing = await race(database_url, await thousand(world))
    assert racing.deadlocks == 0
    assert racing.outcomes.count(Outcome.RECORDED) == 600
    assert racing.outcomes.count(Outcome.UNBILLED_KIND) == 400
    assert racing.outcomes.count(Outcome.DUPLICATE) == 15_000
    assert await world.fetchval("SELECT sum(captured_micros) FROM leases") == 600 * PRICE_MICROS
    assert (
        await world.fetchval("SELECT max(n) FROM (SELECT count(*) n FROM events GROUP BY ticket_id, kind) t")
        == 1
    )
    assert (await reconciled(world.pools.analyst)).differences == ()


async def _replace_settle(database_url: str, *changes: tuple[str, str]) -> asyncpg.Connection:
    owner = await superuser(database_url)
    source: str = await owner.fetchval("SELECT pg_get_functiondef('settle_batch'::regproc)")
    for old, new in changes:
        assert old in source
        source = source.replace(old, new)
    await owner.execute(source)
    return owner


async def thousand_views(world: World) -> list[Event]:
    """No lease makes batches of these take turns: only the order of their keys keeps them apart."""
    return [world.event(world.ticket(1), "view", Outcome.UNBILLED_KIND) for _ in range(1_000)]


async def test_events_without_a_lease_do_not_deadlock(world: World, database_url: str) -> None:
    racing = await race(database_url, await thousand_views(world))
    assert racing.deadlocks == 0
    assert racing.outcomes.count(Outcome.UNBILLED_KIND) == 1_000


async def test_control_a_twin_that_writes_unsorted_deadlocks(world: World, database_url: str) -> None:
    owner = await _replace_settle(
        database_url,
        ("SELECT DISTINCT ON (issued_day, ticket_id, kind)\n        issued_day", "SELECT issued_day"),
        (
            "ORDER BY issued_day, ticket_id, kind, ordinality\n      RETURNING",
            "ORDER BY ordinality RETURNING",
        ),
    )
    await owner.execute(QUICK_DEADLOCKS)
    await owner.close()

    async def deadlocks() -> int:
        few = (await thousand_views(world))[: 3 * BATCH]
        return (await race(database_url, few)).deadlocks

    assert await happens(deadlocks)


async def kinds_of_the_same_tickets(world: World) -> list[Event]:
    """Two batches with different kinds of a ticket meet at its viewer, not at the keys of their events."""
    tickets = [world.ticket(1) for _ in range(200)]
    kinds = ("impression", "view", "click", "hide", "complete")
    return [
        world.event(ticket, kind, Outcome.LATE, seed) for ticket in tickets for seed, kind in enumerate(kinds)
    ]


async def test_kinds_of_the_same_tickets_at_once_have_one_viewer(world: World, database_url: str) -> None:
    racing = await race(database_url, await kinds_of_the_same_tickets(world))
    assert racing.deadlocks == 0
    assert racing.outcomes.count(Outcome.LATE) == 1_000
    assert racing.outcomes.count(Outcome.DUPLICATE) == 15_000
    assert await world.pools.recorder.fetchval("SELECT count(*) FROM viewer_caps") == 200
    assert await world.fetchval("SELECT count(*) FROM viewer_log") == 200


async def test_control_a_twin_that_does_not_look_again_fails_a_batch(world: World, database_url: str) -> None:
    owner = await _replace_settle(database_url, ("attempt = c_attempts_max", "true"))
    await owner.close()

    async def fails() -> bool:
        try:
            await race(database_url, await kinds_of_the_same_tickets(world))
        except JournalRejected:
            return True
        return False

    assert await happens(fails)


async def test_control_a_twin_without_the_key_bills_twice(world: World, database_url: str) -> None:
    owner = await _replace_settle(
        database_url,
        ("ORDER BY id FOR NO KEY UPDATE", "ORDER BY id"),
        (
            "captured_micros = captured_micros + c.micros",
            "captured_micros = leases.captured_micros + 0 * c.micros",
        ),
    )
    for table in (
        "events",
        "viewer_caps",
        "viewer_log",
    ):  # the maps stand in for the key of a ticket's first event
        await owner.execute(f"ALTER TABLE {table} DROP CONSTRAINT {table}_pkey CASCADE")
    await owner.close()

    async def bills_twice() -> bool:
        few = (await thousand(world))[:200]  # without the key's index, more would take long to look up
        return (await race(database_url, few)).outcomes.count(Outcome.RECORDED) > 200

    assert await happens(bills_twice)
    names = {difference.check for difference in (await reconciled(world.pools.analyst)).differences}
    assert "tickets billed again" in names


async def test_concurrent_captures_never_exceed_a_lease(world: World, database_url: str) -> None:
    lease = await world.lease(100 * PRICE_MICROS + 1)
    events = [world.event(world.ticket(lease)) for _ in range(300)]
    racing = await race(database_url, events)
    assert racing.outcomes.count(Outcome.RECORDED) == 100
    assert racing.outcomes.count(Outcome.OVER_BUDGET) == 200
    assert await world.fetchval("SELECT captured_micros FROM leases") == 100 * PRICE_MICROS


async def freezes_beside_a_settlement(world: World, database_url: str) -> bool:
    """Whether a settlement that has the first of two leases still gets the second while both are being frozen."""
    leases = [await world.lease(PRICE_MICROS) for _ in range(2)]
    settling, watching = await superuser(database_url), await superuser(database_url)
    got_both = True
    async with settling.transaction():
        await settling.execute(LOCK, leases[0])
        freezing = asyncio.create_task(world.ledger.freeze(dict.fromkeys(reversed(leases), NOW_MS), NOW_MS))
        await until(lambda: watching.fetchval(WAITING))
        try:
            async with settling.transaction():
                await settling.execute(f"{LOCK} NOWAIT", leases[1])
        except asyncpg.LockNotAvailableError:
            got_both = False
    await freezing
    assert await watching.fetchval("SELECT count(*) FROM leases WHERE frozen_at IS NOT NULL") == 2
    await settling.close()
    await watching.close()
    return got_both


async def test_freezing_locks_leases_in_the_order_of_settlement(world: World, database_url: str) -> None:
    assert await freezes_beside_a_settlement(world, database_url)


async def test_control_freezing_in_another_order_would_deadlock(world: World, database_url: str) -> None:
    owner = await superuser(database_url)
    source: str = await owner.fetchval("SELECT pg_get_functiondef('freeze_leases'::regproc)")
    assert "ORDER BY id FOR" in source
    await owner.execute(source.replace("ORDER BY id FOR", "ORDER BY id DESC FOR"))
    await owner.close()
    assert not await freezes_beside_a_settlement(world, database_url)


async def test_closing_and_taking_beside_settlement_neither_deadlocks_nor_loses_a_micro(
    world: World, database_url: str
) -> None:
    events = await thousand(world)
    leases = [lease for (lease,) in await world.pools.analyst.fetch("SELECT id FROM leases")]
    racing = asyncio.create_task(race(database_url, events))
    for lease in leases:
        await world.lease(1_000)
        await world.ledger.freeze({lease: 0}, 0)
        await world.ledger.close_due(1)
    assert (await racing).deadlocks == 0
    assert (await reconciled(world.pools.analyst)).differences == ()
