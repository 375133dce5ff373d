"""A small advertiser's world in a real database, for tests of what events and money become."""

from dataclasses import dataclass, field
from datetime import date
from typing import Any
from uuid import UUID

import asyncpg

from adserve.database import partitions
from adserve.database.pools import Pools
from adserve.domain.events import Event, EventKind, Outcome
from adserve.domain.ids import EventId, derived_uuid7
from adserve.domain.tickets import Ticket
from adserve.domain.time import DAY_MS, HOUR_MS, day_of, from_ms
from adserve.limits.pacing import Asked
from adserve.store.journal import Journal
from adserve.store.ledger import Ledger, deposit

NOW_MS = 1_767_225_600_000 + 12 * HOUR_MS  # 2026-01-01T12:00:00Z
REPLICA = UUID(int=1)
PRICE_MICROS = 2_500

CAMPAIGN = """
INSERT INTO campaigns (advertiser_id, name, objective, starts_at, time_zone, bid_model, bid_micros, currency, billable,
                       budget_daily_micros, budget_total_micros, pacing, priority)
VALUES ($1, 'c', 'reach', '2020-01-01', 'UTC', 'cpm', 2500000, 'USD', 'impression', $2, $3, 'asap', 'auction') RETURNING id"""


@dataclass
class World:
    pools: Pools
    journal: Journal
    ledger: Ledger
    advertiser: int
    campaign: int
    _tickets: int = field(default=0)

    async def add_advertiser(self, micros: int) -> int:
        advertiser: int = await self.pools.operator.fetchval(
            "INSERT INTO advertisers (name) VALUES ('a') RETURNING id"
        )
        if micros:
            await deposit(self.pools.operator, advertiser, micros, "USD", "test", NOW_MS)
        return advertiser

    async def add_campaign(self, advertiser: int, daily: int | None = None, total: int | None = None) -> int:
        campaign: int = await self.pools.operator.fetchval(CAMPAIGN, advertiser, daily, total)
        return campaign

    async def lease(self, micros: int, campaign: int | None = None, day: date | None = None) -> int:
        asked = Asked(campaign or self.campaign, day or day_of(NOW_MS), micros, micros, None, None)
        (granted,) = await self.ledger.take([asked], REPLICA, NOW_MS + DAY_MS, NOW_MS)
        assert granted.lease is not None
        return granted.lease

    def ticket(self, lease: int, **facts: Any) -> Ticket:
        self._tickets += 1
        values: dict[str, Any] = {
            "ticket": derived_uuid7(NOW_MS, self._tickets, 0),
            "decision": derived_uuid7(NOW_MS, self._tickets, 1),
            "advertiser": self.advertiser,
            "campaign": self.campaign,
            "ad": 12,
            "creative": 31,
            "revision": 1,
            "viewer_cap": b"c" * 16,
            "viewer_log": b"l" * 16,
            "price_micros": PRICE_MICROS,
            "currency": "USD",
            "billable": "impression",
            "lease": lease,
            "budget_day": day_of(NOW_MS).toordinal(),
            "epoch": 1,
            "surface": "status",
            "country": "ID",
            "platform": "android",
            "position": 4,
            "propensity": 1.0,
            "model": "prior",
            "catalogue_version": 1,
            "rules_version": 1,
            "arm": "exposed",
            "issued_at_ms": NOW_MS,
            "expires_at_ms": NOW_MS + HOUR_MS,
            "labels": ("food",),
        }
        return Ticket(**values | facts)

    def event(
        self, ticket: Ticket, kind: str = "impression", outcome: Outcome = Outcome.RECORDED, seed: int = 0
    ) -> Event:
        event = EventId(derived_uuid7(NOW_MS, ticket.ticket.int + seed, 2))
        return Event(event, EventKind(kind), ticket, outcome, NOW_MS + 1_000, None, None)

    async def issue_invoices(self) -> None:
        """Those of the month that NOW_MS is in, of what was charged in it so far."""
        month, at = day_of(NOW_MS).replace(day=1), from_ms(NOW_MS + 40 * DAY_MS)
        operator = self.pools.operator
        await operator.execute("SELECT draft_invoices('UTC', $1, $2)", month, at)
        for (invoice,) in await operator.fetch("SELECT id FROM invoices WHERE status = 'draft'"):
            await operator.execute("SELECT issue_invoice($1, '{}', 'INV', $2)", invoice, at)

    async def fetchval(self, query: str, *values: Any) -> Any:
        return await self.pools.analyst.fetchval(query, *values)


async def make_world(pools: Pools) -> World:
    """An advertiser with 1,000 USD, a campaign without limits, and partitions around the present."""
    day = day_of(NOW_MS)
    async with pools.owner.acquire() as connection:
        await partitions.ensure(connection, day_of(NOW_MS - DAY_MS), day_of(NOW_MS + DAY_MS))
    world = World(pools, Journal(pools.recorder), Ledger(pools.recorder), 0, 0)
    world.advertiser = await world.add_advertiser(1_000_000_000)
    world.campaign = await world.add_campaign(world.advertiser)
    assert from_ms(NOW_MS).date() == day
    return world


async def superuser(database_url: str) -> asyncpg.Connection:
    """Somebody who may break what the service may not."""
    return await asyncpg.connect(database_url, server_settings={"search_path": "adserve"})
