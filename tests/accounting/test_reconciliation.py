from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest
from world import NOW_MS, PRICE_MICROS, World, superuser

from adserve.accounting.reconciliation import Difference
from adserve.domain.events import Outcome
from adserve.domain.time import HOUR_MS
from adserve.store.books import reconciled


def test_a_difference_is_told_to_the_micro() -> None:
    assert str(Difference("c", ("a", None), 5, 6)) == "c [a -]: derived 5, booked 6, off by 1"


async def live(world: World) -> None:
    """A day's life: leases of two campaigns, every outcome, one lease closed with money left."""
    limited = await world.add_campaign(world.advertiser, daily=500_000, total=900_000)
    first, second = await world.lease(10_000), await world.lease(50_000, limited)
    events = [world.event(world.ticket(first)) for _ in range(5)]
    events += [world.event(world.ticket(second, campaign=limited, ad=13)) for _ in range(3)]
    late = world.ticket(first)
    events += [world.event(late, outcome=Outcome.LATE), world.event(late, "click", Outcome.UNBILLED_KIND)]
    settled = await world.journal.settle(events[:2]) + await world.journal.settle(events[2:])
    outcomes = {each.outcome for each in settled}
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
    "compacted": (
        "roll-up events",
        "SELECT compact_rollups(1000); UPDATE rollups SET events = events + 1 WHERE kind = 'click'",
    ),
    "doubled": (
        "roll-up micros",
        "INSERT INTO rollup_deltas SELECT * FROM rollup_deltas WHERE outcome = 'recorded'",
    ),
    "unposted": (
        "charges by transaction",
        "DELETE FROM postings WHERE transaction_id = (SELECT max(transaction_id) FROM events)",
    ),
    # Each transaction balances, and every lease, account and campaign has its sum.
    "moved": (
        "charges by transaction",
        "UPDATE postings SET micros = micros + sign(micros) * CASE transaction_id WHEN (SELECT max(transaction_id) FROM events) "
        "THEN 1 ELSE -1 END WHERE transaction_id IN (SELECT transaction_id FROM events) AND lease_id = (SELECT min(id) FROM leases)",
    ),
    "moved between campaigns": (
        "revenue by campaign and lease",
        "UPDATE postings SET micros = micros + CASE lease_id WHEN (SELECT min(id) FROM leases) THEN 1 ELSE -1 END "
        "WHERE transaction_id = (SELECT max(transaction_id) FROM events) AND micros > 0",
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
    told: list[Difference] = []
    result = await reconciled(world.pools.analyst, found=told.append)
    assert check in {difference.check for difference in told}
    assert result.differences == tuple(told)
    assert result.differing == len(told)


async def test_a_moved_micro_is_in_no_other_sum(world: World, database_url: str) -> None:
    await live(world)
    vandal = await superuser(database_url)
    await vandal.execute("SET session_replication_role = replica")
    await vandal.execute(PLANTED["moved"][1])
    await vandal.close()
    differences = (await reconciled(world.pools.analyst)).differences
    assert {difference.check for difference in differences} == {"charges by transaction"}
    assert sorted(difference.booked - difference.derived for difference in differences) == [-1, -1, 1, 1]


class Busy:
    """A pool whose every statement has an event settled first."""

    def __init__(self, world: World, lease: int, isolation: str | None = None) -> None:
        self._world, self._lease, self._isolation = world, lease, isolation

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator["Busy"]:
        async with self._world.pools.analyst.acquire() as self._connection:
            yield self

    def transaction(self, isolation: str) -> Any:
        return self._connection.transaction(isolation=self._isolation or isolation)

    async def execute(self, *statement: Any, **options: Any) -> str:
        await self._world.journal.settle([self._world.event(self._world.ticket(self._lease))])
        return await self._connection.execute(*statement, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


async def test_what_settles_meanwhile_is_not_seen_by_halves(world: World) -> None:
    lease = await world.lease(1_000_000)
    result = await reconciled(Busy(world, lease))
    assert result.differences == ()
    assert await world.fetchval("SELECT count(*) FROM events") > result.events


async def test_control_without_one_snapshot_it_is(world: World) -> None:
    lease = await world.lease(1_000_000)
    assert not (await reconciled(Busy(world, lease, "read_committed"))).exact


async def _drop_checks(vandal: asyncpg.Connection) -> None:
    for table in ("events", "leases", "budget_uses", "accounts", "postings"):
        for name in await vandal.fetch(
            "SELECT conname FROM pg_constraint WHERE conrelid = $1::regclass AND contype = 'c'", table
        ):
            await vandal.execute(f'ALTER TABLE {table} DROP CONSTRAINT "{name[0]}" CASCADE')
