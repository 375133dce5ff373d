"""Promotions, the prepaid balance and the credit line: in which order they are spent, and that no lease goes beyond them."""

import asyncio
from datetime import date

import asyncpg
import pytest
from billing import Billing
from test_ledger import TODAY, ask, grab, granted, taken
from world import NOW_MS, REPLICA, World, superuser

from adserve.domain.time import DAY_MS, HOUR_MS, from_ms
from adserve.store.books import reconciled
from adserve.store.ledger import Balance, balances, deposit, promote, set_credit_line

FEBRUARY, MARCH = date(2026, 2, 1), date(2026, 3, 1)


async def advertiser(world: World, *, prepaid: int = 0, promotional: int = 0, line: int = 0) -> int:
    made = await world.add_advertiser(prepaid)
    if promotional:
        await promote(world.pools.operator, made, promotional, "USD", "welcome", NOW_MS)
    assert await set_credit_line(world.pools.operator, made, line, "USD", NOW_MS) is None
    return made


async def funds(world: World, owner: int) -> tuple[int, int, int, int]:
    """Promotional, prepaid, owed, held."""
    (now,) = await balances(world.pools.operator, owner)
    return now.promotional_micros, now.available_micros, now.owed_micros, now.held_micros


async def close(world: World) -> None:
    leases = await world.ledger.drawable(REPLICA)
    await world.ledger.freeze(dict.fromkeys(leases, NOW_MS), NOW_MS)
    await world.ledger.close_due(NOW_MS)


async def test_a_promotion_is_spent_first_and_credit_last(world: World) -> None:
    owner = await advertiser(world, prepaid=100, promotional=50, line=200)
    campaign = await world.add_campaign(owner)
    for micros, left in ((30, (20, 100, 0, 30)), (60, (0, 60, 0, 90)), (110, (0, 0, 50, 200))):
        assert await taken(world, campaign, micros) == micros
        assert await funds(world, owner) == left
    assert await taken(world, campaign, 1_000) == 150
    assert await taken(world, campaign, 1) == 0
    assert await funds(world, owner) == (0, 0, 200, 350)
    assert (await reconciled(world.pools.analyst)).differences == ()
    await close(world)
    assert await funds(world, owner) == (50, 100, 0, 0)
    assert (await reconciled(world.pools.analyst)).differences == ()


async def test_what_a_lease_did_not_spend_goes_back_to_where_it_came_from(world: World) -> None:
    for spent, left in (
        (2_500, (47_500, 100_000, 0, 0)),
        (52_500, (0, 97_500, 0, 0)),
        (152_500, (0, 0, 2_500, 0)),
    ):
        owner = await advertiser(world, prepaid=100_000, promotional=50_000, line=200_000)
        campaign = await world.add_campaign(owner)
        lease = await world.lease(350_000, campaign)
        tickets = [world.ticket(lease, campaign=campaign, advertiser=owner) for _ in range(spent // 2_500)]
        await world.journal.settle([world.event(ticket) for ticket in tickets])
        await close(world)
        assert await funds(world, owner) == left
    assert (await reconciled(world.pools.analyst)).differences == ()


async def test_campaigns_of_one_batch_stack_on_the_same_funds(world: World) -> None:
    owner = await advertiser(world, prepaid=100, promotional=50, line=200)
    campaigns = [await world.add_campaign(owner) for _ in range(4)]
    answers = await granted(world, *(ask(campaign, 110) for campaign in campaigns))
    assert [answers[campaign].micros for campaign in campaigns] == [110, 110, 110, 20]
    rows = await world.pools.analyst.fetch(
        "SELECT promotional_micros, credit_micros FROM leases ORDER BY campaign_id"
    )
    assert [tuple(row) for row in rows] == [(50, 0), (0, 70), (0, 110), (0, 20)]
    assert (await reconciled(world.pools.analyst)).differences == ()


async def test_eight_takers_never_exceed_all_funds_together(world: World, database_url: str) -> None:
    owner = await advertiser(world, prepaid=333, promotional=100, line=555)
    assert await grab(database_url, await world.add_campaign(owner)) == 988


async def test_a_credit_line_never_falls_below_what_is_owed_or_held(world: World, database_url: str) -> None:
    owner = await advertiser(world, line=200)
    campaign = await world.add_campaign(owner)
    assert await taken(world, campaign, 150) == 150
    set_line = world.pools.operator
    assert await set_credit_line(set_line, owner, 149, "USD", NOW_MS) == 150
    assert await set_credit_line(set_line, owner, 150, "USD", NOW_MS) is None
    assert await taken(world, campaign, 1) == 0
    before = await world.ledger.newest_funds()
    assert await set_credit_line(set_line, owner, 170, "USD", NOW_MS) is None
    assert await world.ledger.newest_funds() > before  # or the keeper would not ask again
    assert await taken(world, campaign, 50) == 20
    vandal = await superuser(database_url)
    with pytest.raises(asyncpg.CheckViolationError):
        await vandal.execute("UPDATE accounts SET balance_micros = -1 WHERE kind = 'receivable'")
    await vandal.close()


async def test_what_is_drawn_on_the_line_is_due_on_the_invoice_and_free_again_when_paid(world: World) -> None:
    billing = Billing(world)
    world.advertiser = await advertiser(world, prepaid=1_000_003, line=10_000_000)
    world.campaign = await world.add_campaign(world.advertiser)
    await billing.charge(from_ms(NOW_MS), 1_500_001, 2)
    await billing.close_leases(FEBRUARY)
    await billing.charge(
        from_ms(NOW_MS + 32 * 24 * HOUR_MS), 700_000
    )  # the next month's, on the line as well
    (draft,) = await billing.drafted(FEBRUARY)
    january = await billing.issue(draft)
    assert (january.net_micros, january.total_micros, january.due_micros) == (3_000_002, 3_000_000, 2_000_000)
    (second,) = await billing.drafted(MARCH)
    await billing.close_leases(MARCH)
    february = await billing.issue(second)
    assert (february.net_micros, february.due_micros) == (700_000, 700_000)
    (owing,) = await balances(world.pools.operator, world.advertiser)
    assert owing.owed_micros == 1_999_999 + 700_000
    await billing.pay(january)
    await billing.pay(february)
    assert await balances(world.pools.operator, world.advertiser) == [
        Balance("USD", 0, 0, 10_000_000, 0, 0, 3_700_002)
    ]
    assert await billing.balance("receivable") == 0
    assert (await reconciled(world.pools.analyst)).differences == ()


async def test_no_more_is_due_than_an_invoice_says(world: World) -> None:
    """Its lines of less than half a cent come to nothing, and what is owed for them would be rounded up."""
    billing = Billing(world)
    world.advertiser = await advertiser(world, prepaid=1_000, line=20_000_000)
    world.campaign = await world.add_campaign(world.advertiser)
    for day in range(2):
        await billing.charge(from_ms(NOW_MS + day * DAY_MS), 4_000)
    await billing.close_leases(FEBRUARY)
    assert await funds(world, world.advertiser) == (0, 0, 7_000, 0)
    (draft,) = await billing.drafted(FEBRUARY)
    issued = await billing.issue(draft)
    assert (issued.net_micros, issued.total_micros, issued.due_micros) == (8_000, 0, 0)
    await billing.pay(issued)
    assert await funds(world, world.advertiser) == (0, 0, 0, 0)
    assert (await reconciled(world.pools.analyst)).differences == ()


async def test_nothing_is_due_of_an_invoice_that_is_rounded_below_nothing(world: World) -> None:
    """A credit note for a cent, and eight charges that come to less than half a cent each, a part of them on credit."""
    billing = Billing(world)
    world.advertiser = await advertiser(world, prepaid=25_000, line=10_000_000)
    world.campaign = await world.add_campaign(world.advertiser)
    (event,) = await billing.charge(from_ms(NOW_MS), 6_000)
    await billing.close_leases(FEBRUARY)
    (january,) = await billing.drafted(FEBRUARY)
    await billing.issue(january)
    await billing.credit(event)
    for day in range(40, 48):
        await billing.charge(from_ms(NOW_MS + day * DAY_MS), 4_000)
        await billing.close_leases(MARCH)
    (february,) = await billing.drafted(MARCH)
    issued = await billing.issue(february)
    assert (issued.net_micros, issued.total_micros, issued.due_micros) == (26_000, -10_000, 0)
    await billing.pay(issued)
    assert await funds(world, world.advertiser) == (0, 0, 0, 0)
    assert (await reconciled(world.pools.analyst)).differences == ()


async def test_a_credit_pays_off_debt_before_it_becomes_balance(world: World) -> None:
    billing = Billing(world)
    world.advertiser = await advertiser(world, line=5_000_000)
    world.campaign = await world.add_campaign(world.advertiser)
    (event,) = await billing.charge(from_ms(NOW_MS), 10_000)
    await billing.close_leases(FEBRUARY)
    assert await funds(world, world.advertiser) == (0, 0, 10_000, 0)
    await billing.credit(event, micros=4_000, reason="rate")
    assert await funds(world, world.advertiser) == (0, 0, 6_000, 0)
    await deposit(world.pools.operator, world.advertiser, 50, "USD", "test", NOW_MS)
    both = [billing.credit(event, reason=reason) for reason in ("bot", "datacentre")]
    assert sorted(map(bool, await asyncio.gather(*both))) == [False, True]
    assert await funds(world, world.advertiser) == (0, 50, 0, 0)
    with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="only 0 micros"):
        await billing.credit(event, micros=1, reason="more")
    assert (await reconciled(world.pools.analyst)).differences == ()


async def test_credits_are_append_only(world: World, database_url: str) -> None:
    billing = Billing(world)
    (event,) = await billing.charge(from_ms(NOW_MS), 10_000)
    await billing.credit(event)
    vandal = await superuser(database_url)
    for change in ("UPDATE credits SET micros = micros + 1", "DELETE FROM credits", "TRUNCATE credits"):
        with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="append-only"):
            await vandal.execute(change)
    await vandal.execute("ALTER TABLE credits DISABLE TRIGGER append_only")  # the control
    assert await vandal.execute("UPDATE credits SET micros = micros + 1") == "UPDATE 1"
    await vandal.close()


async def test_a_campaign_without_funds_gets_none(world: World) -> None:
    owner = await advertiser(world)
    assert await taken(world, await world.add_campaign(owner), 1, day=TODAY) == 0
