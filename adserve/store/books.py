"""The figures that a reconciliation compares, each booked and derived, as they stood at one moment."""

from collections import defaultdict

import asyncpg

from adserve.accounting.reconciliation import Check, Key, Reconciliation, reconcile
from adserve.store.statements import load

SQL = load("books")

TIMEOUT_S = 3_600.0


async def reconciled(pool: asyncpg.Pool) -> Reconciliation:
    """Needs a pool of adserve_analyst. Reads one snapshot: what settles meanwhile is not seen by halves."""
    async with (
        pool.acquire() as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        await connection.execute(SQL.take_time)
        volume = await connection.fetch(SQL.volume, timeout=TIMEOUT_S)
        figures = await connection.fetch(SQL.figures, timeout=TIMEOUT_S)
    sides: dict[str, dict[bool, dict[Key, int]]] = defaultdict(lambda: {False: {}, True: {}})
    for name, booked, key, amount in figures:
        sides[name][booked][tuple(key)] = int(amount)
    checks = [Check(name, derived=side[False], booked=side[True]) for name, side in sides.items()]
    return reconcile(
        checks,
        sum(row["events"] for row in volume),
        {row["currency"]: row["billed_micros"] for row in volume},
    )
