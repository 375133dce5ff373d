"""Budget leases, deposits and balances: every movement of money that is not the settlement of events."""

from collections.abc import Mapping
from datetime import date
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg

from adserve.domain.ids import AdvertiserId
from adserve.domain.time import from_ms
from adserve.store.desk import Connection
from adserve.store.errors import AWAY, Away
from adserve.store.statements import load

SQL = load("ledger")

CLOSED_AT_ONCE_MAX = 500
TIMEOUT_S = 5.0


class Balance(NamedTuple):
    """An advertiser's money in one currency: not yet promised, promised by leases, charged."""

    currency: str
    available_micros: int
    held_micros: int
    spent_micros: int


class Ledger:
    """The leases. Needs a pool of adserve_recorder."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def take(
        self,
        campaign: int,
        budget_day: date,
        wanted_micros: int,
        least_micros: int,
        replica: UUID,
        at_ms: int,
    ) -> tuple[int, int] | None:
        """A new lease's id and micros, between least and wanted; None where budget or balance have less room."""
        rows = await self._fetch(
            SQL.take, campaign, budget_day, wanted_micros, least_micros, replica, from_ms(at_ms)
        )
        return (rows[0]["lease_id"], rows[0]["granted_micros"]) if rows else None

    async def drawable(self, replica: UUID) -> dict[int, int]:
        """What was captured from each lease that a replica may draw on."""
        return {lease: captured for lease, captured in await self._fetch(SQL.drawable, replica)}

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

    async def _fetch(self, statement: str, *values: Any) -> list[Any]:
        try:
            async with self._pool.acquire(timeout=TIMEOUT_S) as connection:
                rows: list[Any] = await connection.fetch(statement, *values, timeout=TIMEOUT_S)
                return rows
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


async def balances(connection: Connection, advertiser: AdvertiserId) -> list[Balance]:
    """One for each currency in which money ever came in."""
    return [Balance(*row) for row in await connection.fetch(SQL.balances, advertiser)]
