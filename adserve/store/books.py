"""Holds the books against the events: every figure summed by PostgreSQL, a day at a time, over one snapshot of all of them."""

from collections.abc import Callable
from datetime import date
from typing import Any, NamedTuple

import asyncpg

from adserve.accounting.reconciliation import DIFFERENCES_KEPT_MAX, Difference, Reconciliation
from adserve.domain.time import from_ms, to_ms
from adserve.store.statements import load

SQL = load("books")

TIMEOUT_S = 3_600.0
DIFFERENCES_A_FETCH = 500

Progress = Callable[[int, int], None]
"""Is told how many steps are done, and of how many."""
Found = Callable[[Difference], None]

_A_DAY = (SQL.sum_day, SQL.sum_charges, SQL.sum_due, SQL.rate_day)
_A_CLOSED_DAY = (SQL.sum_closed_day, SQL.sum_due, SQL.sum_retired_due, SQL.check_closed_day)
_THE_BOOKS = (
    SQL.sum_books,
    SQL.check_leases,
    SQL.check_charges,
    SQL.check_balances,
    SQL.check_invoices,
    SQL.check_credits,
    SQL.check_charges_on_invoices,
    SQL.check_rollups,
)


class Night(NamedTuple):
    """A nightly reconciliation as it was written down."""

    started_at_ms: int
    finished_at_ms: int
    result: Reconciliation


async def reconciled(
    pool: asyncpg.Pool, progress: Progress = lambda _done, _of: None, found: Found = lambda _: None
) -> Reconciliation:
    """Needs a pool of adserve_analyst. What settles meanwhile is not seen by halves. `found` is told every difference."""
    async with pool.acquire() as connection, connection.transaction(isolation="repeatable_read"):
        await connection.execute(SQL.take_snapshot, timeout=TIMEOUT_S)
        return await _reconciled(connection, progress, found)


class Nights:
    """The nightly reconciliations. Needs pools of adserve_analyst and adserve_recorder."""

    def __init__(self, analyst: asyncpg.Pool, recorder: asyncpg.Pool) -> None:
        self._analyst = analyst
        self._recorder = recorder

    async def newest(self) -> Night | None:
        async with self._analyst.acquire() as connection:
            return await newest(connection)

    async def run(self, due_ms: int, clock: Callable[[], int]) -> None:
        """Reconciles and writes down the result, unless another process does, or has since `due_ms`."""
        async with (
            self._analyst.acquire() as connection,
            connection.transaction(isolation="repeatable_read"),
        ):
            await connection.execute(SQL.take_snapshot, timeout=TIMEOUT_S)
            if not await connection.fetchval(SQL.night_turn):
                return
            before = await self.newest()  # as of now: the snapshot may be older than the turn
            started_at_ms = clock()
            if before is not None and before.started_at_ms >= due_ms:
                return
            result = await _reconciled(connection, lambda _done, _of: None, lambda _: None)
            await self._recorder.execute(
                SQL.save,
                from_ms(started_at_ms),
                from_ms(clock()),
                result.first_raw_day,
                result.events,
                dict(result.billed_micros),
                result.compared,
                result.differing,
                [difference._asdict() for difference in result.differences],
            )


async def newest(connection: Any) -> Night | None:
    row = await connection.fetchrow(SQL.newest)
    if row is None:
        return None
    started_at, finished_at, first_raw_day, events, billed_micros, compared, differing, differences = row
    found = tuple(Difference(**each | {"key": tuple(each["key"])}) for each in differences)
    result = Reconciliation(first_raw_day, events, billed_micros, compared, differing, found)
    return Night(to_ms(started_at), to_ms(finished_at), result)


async def _reconciled(connection: Any, progress: Progress, found: Found) -> Reconciliation:
    open_days = [day for (day,) in await connection.fetch(SQL.open_days)]
    closed_days = [day for (day,) in await connection.fetch(SQL.closed_days)]
    steps: list[tuple[str, *tuple[date, ...]]] = [
        (SQL.find_retired,),
        (SQL.find_counts,),
        *((statement, day) for day in open_days for statement in _A_DAY),
        *((statement, day) for day in closed_days for statement in _A_CLOSED_DAY),
        *((statement,) for statement in _THE_BOOKS),
    ]
    for done, (statement, *day) in enumerate(steps, 1):
        await connection.execute(statement, *day, timeout=TIMEOUT_S)
        progress(done, len(steps))
    volume = await connection.fetch(SQL.volume, timeout=TIMEOUT_S)
    compared = await connection.fetchval(SQL.compared, timeout=TIMEOUT_S)
    differing = 0
    kept: list[Difference] = []
    async for name, key, derived, booked in connection.cursor(
        SQL.differences, prefetch=DIFFERENCES_A_FETCH, timeout=TIMEOUT_S
    ):
        difference = Difference(name, tuple(key), derived, booked)
        found(difference)
        differing += 1
        if len(kept) < DIFFERENCES_KEPT_MAX:
            kept.append(difference)
    return Reconciliation(
        min(open_days, default=None),
        sum(row["events"] for row in volume),
        {row["currency"]: row["billed_micros"] for row in volume},
        compared,
        differing,
        tuple(kept),
    )
