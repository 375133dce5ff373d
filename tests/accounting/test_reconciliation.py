import asyncpg
import pytest
from world import NOW_MS, PRICE_MICROS, World, superuser

from adserve.accounting.reconciliation import Check, Difference, reconcile
from adserve.domain.events import Outcome
from adserve.domain.time import HOUR_MS
from adserve.store.books import reconciled


def test_a_key_that_one_side_lacks_is_zero_there() -> None:
    result = reconcile([Check("c", derived={("a",): 5, ("b",): 0}, booked={("a",): 6, ("d",): 1})], 0, {})
    assert result.differences == (Difference("c", ("a",), 5, 6), Difference("c", ("d",), 0, 1))
    assert result.compared == 3
    assert not result.exact
    assert "off by 1" in str(result.differences[0])


async def live(world: World) -> None:
    """A day's life: leases of two campaigns, every outcome, one lease closed with money left."""
    limited = await world.add_campaign(world.advertiser, daily=500_000, total=900_000)
    first, second = await world.lease(10_000), await world.lease(50_000, limited)
    events = [world.event(world.ticket(first)) for _ in range(5)]
    events += [world.event(world.ticket(second, campaign=limited, ad=13)) for _ in range(3)]
    late = world.ticket(first)
    events += [world.event(late, outcome=Outcome.LATE), world.event(late, "click", Outcome.UNBILLED_KIND)]
    outcomes = {settled.outcome for settled in await world.journal.settle(events)}
    assert outcomes == {Outcome.RECORDED, Outcome.OVER_BUDGET, Outcome.LATE, Outcome.UNBILLED_KIND}
    await world.ledger.freeze({second: NOW_MS + HOUR_MS}, NOW_MS)
    await world.ledger.close_due(NOW_MS + HOUR_MS)


async def test_untouched_books_are_exact(world: World) -> None:
    assert (await reconciled(world.pools.analyst)).exact
    await live(world)
    result = await reconciled(world.pools.analyst)
    assert result.differences == ()
    assert result.events == 10
    assert result.billed_micros == {"USD": 7 * PRICE_MICROS}
    assert result.compared > 30


PLANTED = {
    "captures": (
        "lease captures",
        "UPDATE leases SET captured_micros = captured_micros - 1 WHERE closed_at IS NULL",
    ),
    "price": (
        "charges not at the sealed price",
        "UPDATE events SET billed_micros = billed_micros + 1 WHERE event_id = (SELECT event_id FROM events WHERE outcome = 'recorded' LIMIT 1)",
    ),
    "revenue": (
        "revenue by campaign and lease",
        "UPDATE postings SET micros = micros + 1 WHERE ctid = (SELECT p.ctid FROM postings p JOIN accounts a ON a.id = account_id WHERE a.kind = 'revenue' LIMIT 1)",
    ),
    "lopsided": (
        "unbalanced transactions",
        "UPDATE postings SET micros = micros - 1 WHERE ctid = (SELECT min(ctid) FROM postings)",
    ),
    "hold": (
        "holds by lease",
        "UPDATE postings SET micros = micros + sign(micros) WHERE transaction_id = (SELECT min(id) FROM transactions WHERE kind = 'hold')",
    ),
    "return": (
        "returns by lease",
        "UPDATE postings SET micros = micros + sign(micros) WHERE transaction_id = (SELECT min(id) FROM transactions WHERE kind = 'return')",
    ),
    "balance": (
        "balances kept for leasing",
        "UPDATE accounts SET balance_micros = balance_micros + 1 WHERE kind = 'available'",
    ),
    "line": (
        "balances kept for leasing",
        "UPDATE accounts SET credit_line_micros = credit_line_micros + 1 WHERE kind = 'receivable'",
    ),
    "promotion": (
        "holds by lease",
        "UPDATE leases SET promotional_micros = 1 WHERE closed_at IS NULL",
    ),
    "deposit": (
        "account balances",
        "UPDATE postings SET micros = micros - 1 WHERE lease_id IS NULL AND micros < 0",
    ),
    "use": (
        "budget uses",
        "UPDATE budget_uses SET leased_micros = leased_micros - 1 WHERE budget_day IS NULL",
    ),
    "budget": (
        "budgets exceeded",
        "UPDATE budget_uses SET allowed_micros = leased_micros - 1 WHERE budget_day IS NOT NULL AND leased_micros > 0",
    ),
    "over": (
        "leases exceeded",
        "UPDATE leases SET captured_micros = granted_micros + 1 WHERE closed_at IS NULL",
    ),
    "counted": ("roll-up events", "UPDATE rollup_deltas SET events = events + 1 WHERE kind = 'click'"),
    "summed": (
        "roll-up micros",
        "UPDATE rollup_deltas SET billed_micros = billed_micros - 1 WHERE outcome = 'recorded'",
    ),
    "lost": (
        "lease captures",
        "DELETE FROM events WHERE event_id = (SELECT event_id FROM events WHERE outcome = 'recorded' LIMIT 1)",
    ),
    "again": (
        "tickets billed again",
        "UPDATE events SET outcome = 'recorded', billed_micros = price_micros, billable = 'click', "
        "ticket_id = (SELECT ticket_id FROM events WHERE outcome = 'recorded' LIMIT 1) WHERE kind = 'click'",
    ),
}


@pytest.mark.parametrize("planted", PLANTED)
async def test_a_planted_difference_of_one_is_found_and_named(
    world: World, database_url: str, planted: str
) -> None:
    await live(world)
    check, change = PLANTED[planted]
    vandal = await superuser(database_url)
    await vandal.execute("SET session_replication_role = replica")  # no triggers
    await _drop_checks(vandal)
    assert (await vandal.execute(change)).split()[-1] != "0"
    await vandal.close()
    result = await reconciled(world.pools.analyst)
    assert check in {difference.check for difference in result.differences}


async def _drop_checks(vandal: asyncpg.Connection) -> None:
    for table in ("events", "leases", "budget_uses", "accounts", "postings"):
        for name in await vandal.fetch(
            "SELECT conname FROM pg_constraint WHERE conrelid = $1::regclass AND contype = 'c'", table
        ):
            await vandal.execute(f'ALTER TABLE {table} DROP CONSTRAINT "{name[0]}" CASCADE')
