"""Budget leases, funds, credits and balances: every movement of money that is neither the settlement of events nor an
invoice's."""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import date
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg

from adserve.domain.events import EventKind
from adserve.domain.ids import AdvertiserId
from adserve.domain.time import from_ms
from adserve.limits.pacing import Asked, Granted, Unspent, Used
from adserve.store.desk import Connection
from adserve.store.errors import AWAY, Away
from adserve.store.statements import load

SQL = load("ledger")

CLOSED_AT_ONCE_MAX = 500
TIMEOUT_S = 5.0


class Balance(NamedTuple):
    """An advertiser's money in one currency: prepaid and not yet promised, given by us, what it may owe and what it does,
    promised by leases, charged. What is owed includes what leases have taken of the credit line."""

    currency: str
    available_micros: int
    promotional_micros: int
    credit_line_micros: int
    owed_micros: int
    held_micros: int
    spent_micros: int


class Ledger:
    """The leases. Needs a pool of adserve_recorder."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def take(
        self, asked: Sequence[Asked], replica: UUID, tickets_until_ms: int, at_ms: int
    ) -> list[Granted]:
        """New leases, each between least and wanted where budget, balance and pace have room for it.

        Answers for each campaign that exists, in any order.
        """
        columns = map(list, zip(*asked, strict=True))
        rows = await self._fetch(SQL.take, *columns, replica, from_ms(tickets_until_ms), from_ms(at_ms))
        return [Granted(*row) for row in rows]

    async def forecast(self, unspent: Sequence[Unspent], replica: UUID, at_ms: int) -> list[Used]:
        """Tells the other processes what we expect to be left of our leases, and hears what all expect to be charged."""
        columns = map(list, zip(*unspent, strict=True))
        return [Used(*row) for row in await self._fetch(SQL.forecast, *columns, replica, from_ms(at_ms))]

    async def drawable(self, replica: UUID) -> dict[int, int]:
        """What was captured from each lease that a replica may draw on."""
        return dict(await self._fetch(SQL.drawable, replica))

    async def captured(self, replica: UUID, drawn: Sequence[int], retired: Sequence[int]) -> dict[int, int]:
        """The same of some leases: those drawn on that still may be, and those retired that still capture."""
        return dict(await self._fetch(SQL.captured, replica, [*drawn, *retired], drawn))

    async def newest_funds(self) -> int:
        """A number that changes whenever an advertiser gets more to spend."""
        rows = await self._fetch(SQL.funds)
        return int(rows[0][0])

    async def extend(self, until_ms: Mapping[int, int]) -> None:
        """Says of leases until when their tickets last, should we be lost."""
        await self._fetch(SQL.extend, list(until_ms), [from_ms(until) for until in until_ms.values()])

    async def freeze(self, closes_at_ms: Mapping[int, int], at_ms: int) -> None:
        """Ends the drawing on leases, which capture until the moment given for each."""
        moments = [from_ms(closes) for closes in closes_at_ms.values()]
        await self._fetch(SQL.freeze, list(closes_at_ms), moments, from_ms(at_ms))

    async def freeze_lost(self, replica: UUID, heard_since_ms: int, closes_at_ms: int, at_ms: int) -> None:
        """Freezes the leases of all other replicas that have not been heard of since a moment."""
        await self._fetch(
            SQL.freeze_lost, replica, from_ms(heard_since_ms), from_ms(closes_at_ms), from_ms(at_ms)
        )

    async def close_due(self, at_ms: int) -> None:
        """Gives back what is left of leases whose last ticket is over."""
        await self._fetch(SQL.close_due, from_ms(at_ms), CLOSED_AT_ONCE_MAX)

    async def overdue(self, before_ms: int) -> int:
        """How many leases were due before a moment and are open yet, as an event may wait that is to be charged to them."""
        return int((await self._fetch(SQL.overdue, from_ms(before_ms)))[0][0])

    async def add_traffic(self, take: Callable[[], Mapping[tuple[int, str], int]]) -> None:
        """Adds to the counts of slot requests by quarter of an hour and country. They are taken once there is a connection."""
        async with self._lent() as connection:
            requests = take()
            keys = sorted(requests)
            await connection.execute(
                SQL.add_traffic,
                [quarter for quarter, _ in keys],
                [country for _, country in keys],
                [requests[key] for key in keys],
                timeout=TIMEOUT_S,
            )

    async def traffic(self, since_quarter: int) -> Iterable[tuple[int, str, int]]:
        return [tuple(row) for row in await self._fetch(SQL.traffic, since_quarter)]

    async def forget_traffic(self, before_quarter: int, at_ms: int) -> None:
        await self._fetch(SQL.forget_traffic, before_quarter)
        await self._fetch(SQL.forget_forecasts, from_ms(at_ms))

    async def _fetch(self, statement: str, *values: Any) -> list[Any]:
        async with self._lent() as connection:
            rows: list[Any] = await connection.fetch(statement, *values, timeout=TIMEOUT_S)
            return rows

    @asynccontextmanager
    async def _lent(self) -> AsyncIterator[Connection]:
        try:
            async with self._pool.acquire(timeout=TIMEOUT_S) as connection:
                yield connection
        except AWAY as error:
            raise Away from error


async def deposit(
    connection: Connection, advertiser: AdvertiserId, micros: int, currency: str, reference: str, at_ms: int
) -> int:
    """Books money that came in, as adserve_operator, and answers the transaction's id."""
    transaction: int = await connection.fetchval(
        SQL.deposit, advertiser, micros, currency, reference, from_ms(at_ms)
    )
    return transaction


async def promote(
    connection: Connection, advertiser: AdvertiserId, micros: int, currency: str, reference: str, at_ms: int
) -> int:
    """Gives promotional credit, as adserve_operator, and answers the transaction's id."""
    transaction: int = await connection.fetchval(
        SQL.promote, advertiser, micros, currency, reference, from_ms(at_ms)
    )
    return transaction


async def set_credit_line(
    connection: Connection, advertiser: AdvertiserId, micros: int, currency: str, at_ms: int
) -> int | None:
    """As adserve_operator. Answers what is owed or leased already, where that is more: then the line stays as it was."""
    owed: int | None = await connection.fetchval(
        SQL.set_credit_line, advertiser, micros, currency, from_ms(at_ms)
    )
    return owed


class Charge(NamedTuple):
    """The key of an event that was charged."""

    issued_day: date
    ticket: UUID
    kind: EventKind


async def issue_credit(
    connection: Connection,
    charge: Charge,
    reason: str,
    at_ms: int,
    *,
    micros: int | None = None,
    rules_version: int | None = None,
) -> int | None:
    """Gives back a charge, or a part of it, as adserve_recorder or adserve_operator. The same `reason` credits it once:
    None when it did before, or when nothing of the charge is left."""
    credit: int | None = await connection.fetchval(
        SQL.issue_credit, *charge, reason, micros, rules_version, from_ms(at_ms)
    )
    return credit


async def balances(connection: Connection, advertiser: AdvertiserId) -> list[Balance]:
    """One for each currency in which money ever came in."""
    return [Balance(*row) for row in await connection.fetch(SQL.balances, advertiser)]
