"""An event with the lease that it drew on and the postings that it is in."""

from typing import NamedTuple
from uuid import UUID

from adserve.domain.ids import moment_of
from adserve.domain.time import from_ms
from adserve.store.decisions import DATES_END_MS
from adserve.store.desk import Connection
from adserve.store.errors import Missing
from adserve.store.setup import Row
from adserve.store.statements import load

SQL = load("charges")


class Charged(NamedTuple):
    """`postings` are empty where nothing was charged; else each is of all that one batch charged to the lease."""

    event: Row
    lease: Row | None
    postings: list[Row]


async def charged(connection: Connection, event: UUID) -> Charged:
    """Raises Missing for an event that is not there or not the caller's, or whose day is retired."""
    at_ms = moment_of(event)
    stored = None
    if at_ms < DATES_END_MS:
        # An event's id is of its receipt.
        stored = await connection.fetchrow(SQL.event, from_ms(at_ms), event)
    if stored is None:
        raise Missing("there is no such event, or its day is retired")
    lease = await connection.fetchrow(SQL.lease, stored["lease_id"])
    transaction = stored["transaction_id"] if stored["billed_micros"] else None  # invalid, it has others'
    postings = await connection.fetch(SQL.postings, transaction, stored["lease_id"], stored["campaign_id"])
    return Charged(dict(stored), lease, postings)
