"""Invoices: read by whoever may, made and moved on by the operator's role through the functions of the database."""

from datetime import date, timedelta
from typing import NamedTuple

import asyncpg
import msgspec

from adserve.accounting.invoices import Invoice, Line, Seller, Status
from adserve.domain.ids import AdvertiserId
from adserve.domain.time import from_ms
from adserve.store.desk import Connection
from adserve.store.errors import Contradiction, Missing
from adserve.store.setup import Row
from adserve.store.statements import load

SQL = load("invoices")

DRAFT_TIMEOUT_S = 3_600.0


class Filters(NamedTuple):
    """None lets everything through."""

    advertiser: int | None
    currency: str | None
    status: Status | None
    month: date | None


async def page(connection: Connection, after: int, limit: int, filters: Filters) -> list[Invoice]:
    """By id, beyond `after`."""
    return [_invoice(row) for row in await connection.fetch(SQL.page, after, limit, *filters)]


async def one(connection: Connection, id_: int) -> Invoice:
    row = await connection.fetchrow(SQL.one, id_)
    if row is None:
        raise Missing(f"invoices has no {id_}")
    return _invoice(row)


async def lines(connection: Connection, id_: int) -> list[Line]:
    return [Line(**row) for row in await connection.fetch(SQL.lines, id_)]


async def issue(connection: Connection, id_: int, seller: Seller, at_ms: int) -> Status:
    """Gives a draft its number, and answers what it was: anything but a draft stays as it is."""
    return _status(
        await connection.fetchval(SQL.issue, id_, msgspec.to_builtins(seller), seller.series, from_ms(at_ms)),
        id_,
    )


async def void(connection: Connection, id_: int, at_ms: int) -> Status:
    """Takes back what was issued, likewise. Raises Contradiction where it could not be drafted anew."""
    try:
        return _status(await connection.fetchval(SQL.void, id_, from_ms(at_ms)), id_)
    except asyncpg.RestrictViolationError as error:
        raise Contradiction(str(error)) from error


async def pay(connection: Connection, id_: int, at_ms: int) -> Status:
    """Books what is due of what was issued, likewise."""
    return _status(await connection.fetchval(SQL.pay, id_, from_ms(at_ms)), id_)


async def has_any(connection: Connection, advertiser: AdvertiserId) -> bool:
    """Whether an advertiser's days have been invoiced: from then on they stay those of its time zone. The advertiser must
    be locked."""
    found: bool = await connection.fetchval(SQL.invoiced, advertiser)
    return found


class Drafts:
    """Makes the drafts of months that are over. Needs a pool of adserve_operator."""

    def __init__(self, pool: asyncpg.Pool, settled_after_ms: int) -> None:
        """No event of a month comes later than `settled_after_ms` after its end, but by way of the spool."""
        self._pool = pool
        self._settled_after = timedelta(milliseconds=settled_after_ms)

    async def step(self, now_ms: int) -> int:
        """Each time zone's months in a transaction of their own; answers how many invoices were drafted."""
        at = from_ms(now_ms)
        async with self._pool.acquire() as connection:
            runs = await connection.fetch(SQL.due_runs, at, self._settled_after)
            made = 0
            for time_zone, month in runs:
                async with connection.transaction():
                    await connection.execute(SQL.take_time)
                    made += await connection.fetchval(
                        SQL.draft, time_zone, month, at, timeout=DRAFT_TIMEOUT_S
                    )
        return made


def _invoice(row: Row) -> Invoice:
    seller = None if row["seller"] is None else msgspec.convert(row["seller"], Seller)
    return Invoice(**(dict(row) | {"status": Status(row["status"]), "seller": seller}))


def _status(status: str | None, id_: int) -> Status:
    if status is None:
        raise Missing(f"invoices has no {id_}")
    return Status(status)
