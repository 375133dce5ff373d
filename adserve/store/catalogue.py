"""Reads the catalogue as a snapshot, and tells it what this replica has applied."""

import asyncio
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg
import msgspec

from adserve.catalogue.snapshot import EMPTY, Snapshot, changed
from adserve.domain.ads import Ad, Campaign, Cap, Creative, Tier
from adserve.domain.ids import AdId, AdvertiserId, CampaignId, CreativeId
from adserve.domain.rollouts import Stage, SurfaceRollout
from adserve.domain.targeting import Targeting
from adserve.domain.time import DAY_MS, from_ms, to_ms
from adserve.store import statements
from adserve.store.desk import ACQUIRE_TIMEOUT_S
from adserve.store.errors import AWAY, Away

SQL = statements.load("catalogue")

TEXTS_SHARED_MAX = 2_048
READ_ROWS = 200
"""So many are turned into ads at once, which takes about 2 ms, before the event loop goes on."""


class State(NamedTuple):
    """Whoever knows the catalogue of before `whole_from` cannot learn from the rows what has gone since."""

    catalogue_version: int
    switch_version: int
    paused: bool
    whole_from: int


class Catalogue:
    """Plain reads with the catalogue role; `replica` is this process."""

    def __init__(self, pool: asyncpg.Pool, replica: UUID) -> None:
        self._pool = pool
        self._replica = replica

    async def state(self) -> State:
        return State(*await self._pool.fetchrow(SQL.state))

    async def load(self, known: Snapshot, now_ms: int) -> Snapshot:
        """Everything as it stood at one moment, of which only what is new to `known` is read; campaigns that have ended
        are left out."""
        async with self._pool.acquire() as connection, connection.transaction(isolation="repeatable_read"):
            state = State(*await connection.fetchrow(SQL.state))
            if not state.whole_from <= known.version <= state.catalogue_version:
                known = EMPTY
            changes: dict[AdId, Ad | None] = {}
            campaigns: dict[CampaignId, Campaign] = {}
            cursor = connection.cursor(
                SQL.changed_ads,
                known.version,
                from_ms(known.read_at_ms),
                from_ms(now_ms),
                prefetch=READ_ROWS,
            )
            async for row in cursor:
                changes[row["id"]] = _ad_from_row(row, campaigns, known.campaigns) if row["live"] else None
            rollouts = {
                row["surface"]: SurfaceRollout(row["percent_bp"], row["holdout_bp"], row["countries"])
                for row in await connection.fetch(SQL.rollouts)
            }
            stages = {
                (surface, country): Stage(ramp, step, to_ms(entered_at))
                for surface, country, ramp, step, entered_at in await connection.fetch(SQL.stages)
            }
        newer = Snapshot(
            state.catalogue_version,
            (),
            rollouts,
            qualities=known.qualities,
            read_at_ms=now_ms,
            stages=stages,
        )
        return await asyncio.to_thread(changed, known, newer, changes)

    async def landing_url(self, creative: int, revision: int) -> str | None:
        try:
            url: str | None = await self._pool.fetchval(
                SQL.landing_url, creative, revision, timeout=ACQUIRE_TIMEOUT_S
            )
        except AWAY as error:
            raise Away from error
        return url

    async def click_counts(self, since_ms: int, until_ms: int) -> dict[int, tuple[int, int]]:
        """Ad -> (impressions, clicks) of the hours that began between two moments. A day at a time, so that no statement runs long."""
        counts: dict[int, tuple[int, int]] = {}
        for start_ms in range(since_ms, until_ms, DAY_MS):
            end_ms = min(start_ms + DAY_MS, until_ms)
            for ad, shown, clicked in await self._pool.fetch(
                SQL.click_counts, from_ms(start_ms), from_ms(end_ms)
            ):
                before = counts.get(ad, (0, 0))
                counts[ad] = before[0] + shown, before[1] + clicked
        return counts

    async def hide_counts(self, since_ms: int, until_ms: int) -> list[tuple[AdId, int, int]]:
        """Ad, its impressions, its hides and reports between two full hours."""
        rows: list[tuple[AdId, int, int]] = await self._pool.fetch(
            SQL.hide_counts, from_ms(since_ms), from_ms(until_ms)
        )
        return rows

    async def beat(self, switch_version: int) -> None:
        """Says that this replica lives and obeys the switch as of that version."""
        await self._pool.execute(SQL.beat, self._replica, switch_version)

    async def forget_replicas(self) -> None:
        """For a process that knows that no other can serve any more."""
        await self._pool.execute(SQL.forget_replicas)

    async def leave(self) -> None:
        await self._pool.execute(SQL.leave, self._replica)


def _ad_from_row(row: Any, campaigns: dict[CampaignId, Campaign], known: Mapping[CampaignId, Campaign]) -> Ad:
    """`campaigns` are those read so far. One that is as it was `known` stays the same object."""
    campaign = campaigns.get(row["campaign_id"])
    if campaign is None:
        campaign = campaign_from_row(row)
        before = known.get(campaign.id)
        campaigns[campaign.id] = campaign = before if before == campaign else campaign
    return Ad(
        AdId(row["id"]),
        campaign.advertiser,
        _shared(row["advertiser_name"]),
        campaign,
        creative_from_row(row),
    )


def creative_from_row(row: Any) -> Creative:
    return Creative(
        id=CreativeId(row["creative_id"]),
        revision=row["revision"],
        kind=row["kind"],
        media=_shared(row["media"]),
        width=row["width"],
        height=row["height"],
        headline=row["headline"],
        body=_shared(row["body"]),
        call_to_action=_shared(row["call_to_action"]),
        landing_url=_shared(row["landing_url"]),
    )


def campaign_from_row(row: Any) -> Campaign:
    return Campaign(
        id=CampaignId(row["campaign_id"]),
        advertiser=AdvertiserId(row["advertiser_id"]),
        name=row["campaign_name"],
        starts_at_ms=to_ms(row["starts_at"]),
        ends_at_ms=None if row["ends_at"] is None else to_ms(row["ends_at"]),
        time_zone=_shared(row["time_zone"]),
        bid_model=_shared(row["bid_model"]),
        bid_micros=row["bid_micros"],
        currency=_shared(row["currency"]),
        billable=_shared(row["billable"]),
        budget_daily_micros=row["budget_daily_micros"],
        budget_total_micros=row["budget_total_micros"],
        pacing=_shared(row["pacing"]),
        tier=Tier[row["priority"].upper()],
        targeting=_targeting(row["targeting"]),
        caps=_caps(row["caps"]),
        separation=tuple(map(_shared, row["separation"])),
    )


@lru_cache(TEXTS_SHARED_MAX)
def _shared(text: Any) -> Any:
    """One object for equal texts, as long as there are not too many: most repeat from campaign to campaign."""
    return text


@lru_cache(TEXTS_SHARED_MAX)
def _targeting(text: str) -> Targeting:
    return msgspec.json.decode(text, type=Targeting)


@lru_cache(TEXTS_SHARED_MAX)
def _caps(text: str) -> tuple[Cap, ...]:
    return msgspec.json.decode(text, type=tuple[Cap, ...])
