"""Reads the catalogue as a snapshot, and tells it what this replica has applied."""

from typing import Any, NamedTuple
from uuid import UUID

import asyncpg
import msgspec

from adserve.catalogue.snapshot import Snapshot
from adserve.domain.ads import Ad, Campaign, Cap, Creative, Tier
from adserve.domain.ids import AdId, AdvertiserId, CampaignId, CreativeId
from adserve.domain.rollouts import SurfaceRollout
from adserve.domain.targeting import Targeting
from adserve.domain.time import from_ms, to_ms
from adserve.store import statements
from adserve.store.desk import ACQUIRE_TIMEOUT_S
from adserve.store.errors import AWAY, Away

SQL = statements.load("catalogue")


class State(NamedTuple):
    catalogue_version: int
    switch_version: int
    paused: bool


class Catalogue:
    """Plain reads with the catalogue role; `replica` is this process."""

    def __init__(self, pool: asyncpg.Pool, replica: UUID) -> None:
        self._pool = pool
        self._replica = replica

    async def state(self) -> State:
        return State(*await self._pool.fetchrow(SQL.state))

    async def load(self, now_ms: int) -> Snapshot:
        """Everything as it stood at one moment; campaigns that have ended are left out."""
        async with self._pool.acquire() as connection, connection.transaction(isolation="repeatable_read"):
            state = State(*await connection.fetchrow(SQL.state))
            ads = await connection.fetch(SQL.ads, from_ms(now_ms))
            rollouts = await connection.fetch(SQL.rollouts)
        campaigns: dict[int, Campaign] = {}
        return Snapshot(
            state.catalogue_version,
            tuple(_ad_from_row(row, campaigns) for row in ads),
            {
                row["surface"]: SurfaceRollout(row["percent_bp"], row["holdout_bp"], row["countries"])
                for row in rollouts
            },
        )

    async def landing_url(self, creative: int, revision: int) -> str | None:
        try:
            url: str | None = await self._pool.fetchval(
                SQL.landing_url, creative, revision, timeout=ACQUIRE_TIMEOUT_S
            )
        except AWAY as error:
            raise Away from error
        return url

    async def click_counts(self, since_ms: int) -> dict[int, tuple[int, int]]:
        """Ad -> (impressions, clicks) since a moment."""
        rows = await self._pool.fetch(SQL.click_counts, from_ms(since_ms))
        return {row["ad_id"]: (int(row["impressions"] or 0), int(row["clicks"] or 0)) for row in rows}

    async def beat(self, switch_version: int) -> None:
        """Says that this replica lives and obeys the switch as of that version."""
        await self._pool.execute(SQL.beat, self._replica, switch_version)

    async def leave(self) -> None:
        await self._pool.execute(SQL.leave, self._replica)


def _ad_from_row(row: Any, campaigns: dict[int, Campaign]) -> Ad:
    campaign = campaigns.get(row["campaign_id"])
    if campaign is None:
        campaign = campaigns[row["campaign_id"]] = _campaign_from_row(row)
    creative = Creative(
        id=CreativeId(row["creative_id"]),
        **{name: row[name] for name in Creative.__struct_fields__ if name != "id"},
    )
    return Ad(AdId(row["id"]), AdvertiserId(row["advertiser_id"]), row["advertiser_name"], campaign, creative)


def _campaign_from_row(row: Any) -> Campaign:
    return Campaign(
        id=CampaignId(row["campaign_id"]),
        advertiser=AdvertiserId(row["advertiser_id"]),
        name=row["campaign_name"],
        starts_at_ms=to_ms(row["starts_at"]),
        ends_at_ms=None if row["ends_at"] is None else to_ms(row["ends_at"]),
        time_zone=row["time_zone"],
        bid_model=row["bid_model"],
        bid_micros=row["bid_micros"],
        currency=row["currency"],
        billable=row["billable"],
        budget_daily_micros=row["budget_daily_micros"],
        budget_total_micros=row["budget_total_micros"],
        pacing=row["pacing"],
        tier=Tier[row["priority"].upper()],
        targeting=msgspec.convert(row["targeting"], Targeting),
        caps=msgspec.convert(row["caps"], tuple[Cap, ...]),
        separation=tuple(row["separation"]),
    )
