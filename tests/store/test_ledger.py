import asyncio
from datetime import date
from uuid import UUID

import asyncpg
import pytest
from msgspec.structs import replace
from waiting import PATIENCE_S, happens, until_a_lock_is_waited_for
from world import NOW_MS, PRICE_MICROS, REPLICA, World, superuser

from adserve.database.pools import Sizes, open_pools
from adserve.domain.events import Outcome
from adserve.domain.time import DAY_MS, HOUR_MS, day_of
from adserve.limits.pacing import Asked, Granted, Unspent
from adserve.store.books import reconciled
from adserve.store.ledger import SQL, Balance, Ledger, balances, deposit
from adserve.store.spools import Spools

TODAY = day_of(NOW_MS)


def ask(campaign: int, wanted: int, least: int = 1, day: date = TODAY, **paced: int) -> Asked:
    return Asked(campaign, day, wanted, least, paced.get("allowed"), paced.get("unspent"))


async def granted(world: World, *asked: Asked, replica: UUID = REPLICA) -> dict[int, Granted]:
    answers = await world.ledger.take(asked, replica, NOW_MS + HOUR_MS, NOW_MS)
    return {answer.campaign: answer for answer in answers}


async def taken(world: World, campaign: int, wanted: int, least: int = 1, day: date = TODAY) -> int:
    answers = await granted(world, ask(campaign, wanted, least, day))
    return answers[campaign].micros if answers else 0


async def test_a_lease_stays_within_day_total_and_balance(world: World) -> None:
    campaign = await world.add_campaign(world.advertiser, daily=100, total=150)
    assert await taken(world, campaign, 60) == 60
    assert await taken(world, campaign, 60) == 40
    assert await taken(world, campaign, 60) == 0
    tomorrow = day_of(NOW_MS + DAY_MS)
    assert await taken(world, campaign, 60, 51, tomorrow) == 0
    assert await taken(world, campaign, 60, 50, tomorrow) == 50
    poor = await world.add_advertiser(30)
    assert await taken(world, await world.add_campaign(poor, daily=100), 60) == 30
    assert await taken(world, await world.add_campaign(await world.add_advertiser(0)), 60) == 0
    assert await taken(world, 999_999, 60) == 0


async def test_a_batch_shares_a_balance_and_answers_for_each_campaign(world: World) -> None:
    poor = await world.add_advertiser(100)
    first, second, third = [await world.add_campaign(poor, daily=60) for _ in range(3)]
    answers = await granted(world, ask(third, 60), ask(first, 60), ask(second, 60), ask(999_999, 1))
    assert {number: answer.micros for number, answer in answers.items()} == {first: 60, second: 40, third: 0}
    assert answers[third].lease is None
    assert (await reconciled(world.pools.analyst)).exact


async def test_a_paced_lease_stays_within_what_may_be_charged_by_now(world: World) -> None:
    """What processes expect to be left of their leases is room for the pace."""
    campaign = await world.add_campaign(world.advertiser, daily=1_000)
    other = UUID(int=2)
    assert (await granted(world, ask(campaign, 300, allowed=200, unspent=0)))[campaign][2:] == (200, 0, False)
    (used,) = await world.ledger.forecast([Unspent(campaign, TODAY, 50)], REPLICA, NOW_MS)
    assert used == (campaign, 150, 200)
    answers = await granted(world, ask(campaign, 100, allowed=200, unspent=0), replica=other)
    assert answers[campaign][2:] == (50, 150, False)
    await world.ledger.forecast([Unspent(campaign, TODAY, 0)], other, NOW_MS)
    denied = (await granted(world, ask(campaign, 100, allowed=200, unspent=50)))[campaign]
    assert denied == Granted(campaign, None, 0, 200, True)
    assert (await granted(world, ask(campaign, 100, allowed=200, unspent=70)))[campaign][2:] == (
        20,
        180,
        False,
    )
    assert await world.ledger.forecast([Unspent(campaign, TODAY, 90)], other, NOW_MS) == [(campaign, 90, 270)]
    later_ms = NOW_MS + HOUR_MS  # by then the first is not heard of any more
    assert await world.ledger.forecast([Unspent(campaign, TODAY, 90)], other, later_ms) == [
        (campaign, 180, 270)
    ]


async def test_a_lowered_budget_stops_and_a_raised_one_goes_on(world: World) -> None:
    campaign = await world.add_campaign(world.advertiser, daily=100)
    change = "UPDATE campaigns SET budget_daily_micros = $2 WHERE id = $1"
    assert await taken(world, campaign, 80) == 80
    await world.pools.operator.execute(change, campaign, 50)
    assert await taken(world, campaign, 80) == 0
    await world.pools.operator.execute(change, campaign, None)
    assert await taken(world, campaign, 80) == 80
    await world.pools.operator.execute(change, campaign, 170)
    assert await taken(world, campaign, 80) == 10


async def test_a_closing_is_brought_forward_and_not_put_off(world: World) -> None:
    """What comes after it all the same is shown and not charged; what waits keeps the lease open."""
    campaign = await world.add_campaign(world.advertiser, daily=10_000)
    lease, other = await world.lease(4_000, campaign), await world.lease(6_000, campaign)
    first, second, third = (world.ticket(number, campaign=campaign) for number in (lease, lease, other))
    await world.journal.settle([world.event(first)])
    for closes_at_ms in (NOW_MS + HOUR_MS, NOW_MS, NOW_MS + DAY_MS):
        await world.ledger.freeze(dict.fromkeys((lease, other), closes_at_ms), NOW_MS)
    await world.journal.settle([replace(world.event(third), outcome=Outcome.ACCEPTED)])
    await world.ledger.close_due(NOW_MS)
    closed = "SELECT array_agg(id) FROM leases WHERE closed_at IS NOT NULL"
    assert await world.fetchval(closed) == [lease]
    (late,) = await world.journal.settle([world.event(second)])
    assert (late.outcome, late.billed) == (Outcome.OVER_BUDGET, None)
    assert await taken(world, campaign, 10_000) == 4_000 - first.price_micros


async def test_what_was_not_captured_comes_back_when_the_lease_closes(world: World) -> None:
    campaign = await world.add_campaign(world.advertiser, daily=10_000)
    lease = await world.lease(10_000, campaign)
    await world.journal.settle([world.event(world.ticket(lease, campaign=campaign))])
    await world.ledger.freeze({lease: NOW_MS + HOUR_MS}, NOW_MS)
    await world.ledger.close_due(NOW_MS + HOUR_MS - 1)
    assert await taken(world, campaign, 1) == 0
    await world.ledger.close_due(NOW_MS + HOUR_MS)
    await world.ledger.close_due(NOW_MS + HOUR_MS)
    (balance,) = await balances(world.pools.operator, world.advertiser)
    assert balance == Balance("USD", 1_000_000_000 - PRICE_MICROS, 0, 0, 0, 0, PRICE_MICROS)
    late = await world.journal.settle([world.event(world.ticket(lease, campaign=campaign))])
    assert late[0].outcome == "over_budget"
    assert await taken(world, campaign, 10_000) == 10_000 - PRICE_MICROS


async def test_a_lease_that_waits_for_a_spool_that_never_settles_can_be_told(world: World) -> None:
    spools, due_ms, later_ms = Spools(world.pools.recorder), NOW_MS + HOUR_MS, NOW_MS + 3 * DAY_MS
    await world.ledger.freeze({await world.lease(100): due_ms}, NOW_MS)
    await spools.note(REPLICA, NOW_MS, later_ms)
    await world.ledger.close_due(later_ms)
    assert [await world.ledger.overdue(before_ms) for before_ms in (due_ms, later_ms)] == [0, 1]
    await spools.forget(REPLICA)
    await world.ledger.close_due(later_ms)
    assert await world.ledger.overdue(later_ms) == 0


async def test_a_lease_is_closed_without_a_wait_for_other_days(world: World, database_url: str) -> None:
    yesterday = day_of(NOW_MS - DAY_MS)
    assert await taken(world, world.campaign, 100, day=yesterday) == 100
    await world.ledger.freeze({await world.lease(100): NOW_MS}, NOW_MS)
    other = await superuser(database_url)
    async with other.transaction(), asyncio.timeout(PATIENCE_S):
        held = await other.execute("SELECT FROM budget_uses WHERE budget_day = $1 FOR UPDATE", yesterday)
        assert held == "SELECT 1"
        await world.ledger.close_due(NOW_MS)
    await other.close()
    assert await world.fetchval("SELECT count(*) FROM leases WHERE closed_at IS NOT NULL") == 1


async def test_leases_of_a_lost_replica_are_frozen_and_those_of_a_live_one_are_not(world: World) -> None:
    lease = await world.lease(100)
    ours = UUID(int=2)
    heard_since_ms = NOW_MS + 1
    await world.pools.catalogue.execute(
        "INSERT INTO replicas VALUES ($1, to_timestamp($2::float8 / 1000), 1)", REPLICA, float(heard_since_ms)
    )
    await world.ledger.freeze_lost(ours, heard_since_ms, NOW_MS + DAY_MS, NOW_MS)
    assert await world.ledger.drawable(REPLICA) == {lease: 0}
    await world.ledger.freeze_lost(ours, heard_since_ms + 1, NOW_MS + DAY_MS, NOW_MS)
    assert await world.ledger.drawable(REPLICA) == {}
    assert await world.fetchval("SELECT closed_at FROM leases") is None
    assert await world.fetchval("SELECT closes_at = tickets_until FROM leases")


async def grab(database_url: str, campaign: int) -> int:
    """Eight takers at once, ten leases of 30 each; answers what they were granted."""
    pools = await open_pools(database_url, sizes=Sizes(recorder=8))
    try:

        async def taker() -> int:
            ledger, wanted = Ledger(pools.recorder), [ask(campaign, 30)]
            answers = [await ledger.take(wanted, REPLICA, NOW_MS, NOW_MS) for _ in range(10)]
            return sum(answer.micros for (answer,) in answers)

        return sum(await asyncio.gather(*(taker() for _ in range(8))))
    finally:
        await pools.close()


async def test_eight_takers_never_exceed_a_budget(world: World, database_url: str) -> None:
    assert await grab(database_url, await world.add_campaign(world.advertiser, daily=1_000)) == 1_000
    assert await grab(database_url, await world.add_campaign(world.advertiser, total=777)) == 777
    poor = await world.add_advertiser(500)
    assert await grab(database_url, await world.add_campaign(poor)) == 500


async def test_control_a_twin_without_locks_and_bounds_exceeds_the_budget(
    world: World, database_url: str
) -> None:
    owner = await superuser(database_url)
    source = await owner.fetchval("SELECT pg_get_functiondef('take_leases'::regproc)")
    twin = source.replace("FOR NO KEY UPDATE OF u", "").replace("FOR NO KEY UPDATE", "")
    twin = twin.replace("INTO v_rooms FROM shared;", "INTO v_rooms FROM shared; PERFORM pg_sleep(0.01);")
    await owner.execute(twin)
    for constraint in ("budget_uses_check", "accounts_balance_micros_check"):
        table = constraint.split("_check")[0].removesuffix("_balance_micros")
        await owner.execute(f"ALTER TABLE {table} DROP CONSTRAINT {constraint}")
    await owner.close()

    async def exceeds() -> bool:
        return await grab(database_url, await world.add_campaign(world.advertiser, daily=1_000)) > 1_000

    assert await happens(exceeds)


async def test_the_database_itself_bounds_budgets_and_balances(world: World, database_url: str) -> None:
    await world.lease(100, await world.add_campaign(world.advertiser, daily=100))
    owner = await superuser(database_url)
    for change in (
        "UPDATE budget_uses SET leased_micros = 101 WHERE budget_day IS NOT NULL",
        "UPDATE accounts SET balance_micros = -1 WHERE kind = 'available'",
        "UPDATE leases SET captured_micros = 101",
    ):
        with pytest.raises(asyncpg.CheckViolationError):
            await owner.execute(change)
    await owner.close()


async def test_balances_tell_currencies_apart(world: World) -> None:
    await deposit(world.pools.operator, world.advertiser, 70, "EUR", "r", NOW_MS)
    await world.lease(100)
    assert await balances(world.pools.operator, world.advertiser) == [
        Balance("EUR", 70, 0, 0, 0, 0, 0),
        Balance("USD", 999_999_900, 0, 0, 0, 100, 0),
    ]


async def test_a_balance_is_told_without_a_look_at_what_others_used(world: World, database_url: str) -> None:
    for _ in range(100):
        await world.add_campaign(world.advertiser)
    other = await world.add_advertiser(100)
    owner = await superuser(database_url)
    await owner.execute(
        "INSERT INTO budget_uses SELECT id, advertiser_id, $1::date - n, 0 FROM campaigns, generate_series(1, 100) AS n",
        TODAY,
    )
    await owner.execute("ANALYZE")
    plan = "\n".join(line for (line,) in await owner.fetch(f"EXPLAIN {SQL.balances}", other))
    await owner.close()
    assert "Index Cond: ((campaign_id = c.id) AND (budget_day IS NULL))" in plan, plan


async def opens_beside_another(world: World, database_url: str) -> bool:
    """Whether one who has opened an advertiser's first accounts in euros still opens another's in pounds, while first leases in both
    currencies are taken."""
    advertisers = [await world.add_advertiser(0) for _ in range(4)]
    pounds, euros = [await world.add_campaign(advertiser) for advertiser in advertisers[:2]]
    for campaign, currency in ((pounds, "GBP"), (euros, "EUR")):
        await world.pools.operator.execute(
            "UPDATE campaigns SET currency = $2 WHERE id = $1", campaign, currency
        )
    other = await superuser(database_url)
    opened_both = True
    async with other.transaction():
        await other.execute("SELECT open_accounts($1, 'EUR')", advertisers[2])
        taking = asyncio.create_task(granted(world, ask(pounds, 1), ask(euros, 1)))
        await until_a_lock_is_waited_for(database_url)
        try:
            async with other.transaction():
                await other.execute("SET LOCAL lock_timeout = '1ms'")  # there is none to wait for
                await other.execute("SELECT open_accounts($1, 'GBP')", advertisers[3])
        except asyncpg.LockNotAvailableError:
            opened_both = False
    assert (await taking).keys() == {pounds, euros}
    await other.close()
    return opened_both


async def test_first_accounts_are_opened_in_one_order(world: World, database_url: str) -> None:
    """Those of ours are in a currency, and shared by all advertisers."""
    assert await opens_beside_another(world, database_url)


async def test_control_opened_by_advertiser_they_would_deadlock(world: World, database_url: str) -> None:
    owner = await superuser(database_url)
    source: str = await owner.fetchval("SELECT pg_get_functiondef('take_leases'::regproc)")
    assert "ORDER BY currency, advertiser_id" in source
    await owner.execute(
        source.replace("ORDER BY currency, advertiser_id", "ORDER BY advertiser_id, currency")
    )
    await owner.close()
    assert not await opens_beside_another(world, database_url)
