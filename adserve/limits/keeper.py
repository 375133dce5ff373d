"""Keeps the lease book supplied: takes leases ahead of need, gives back what is not needed, off the request path."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, time, timedelta
from typing import NamedTuple, Protocol
from uuid import UUID

from adserve.domain.ads import Campaign
from adserve.domain.time import DAY_MS, SECOND_MS, local_day, to_ms
from adserve.limits.leases import GRACE_MS, Lease, LeaseBook

PERIOD_S = 1
SUPPLY_MS = 10 * SECOND_MS
"""A lease is to last for so long at the rate of drawing since the last one."""
EVENTS_PER_LEASE_MIN = 20
LEASES_PER_DAY_MIN = 10
ASK_AGAIN_MS = 1_500
"""How soon a campaign without budget or balance is asked for again: a deposit works within two seconds."""
LOST_AFTER_MS = 310 * SECOND_MS
"""A replica that was not heard of for so long draws no more: its snapshot is too old to serve from."""
TICKET_TTL_MAX_MS = DAY_MS


class Ledger(Protocol):
    async def take(
        self,
        campaign: int,
        budget_day: date,
        wanted_micros: int,
        least_micros: int,
        replica: UUID,
        at_ms: int,
    ) -> tuple[int, int] | None: ...

    async def drawable(self, replica: UUID) -> dict[int, int]: ...

    async def freeze(self, closes_at_ms: Mapping[int, int], at_ms: int) -> None: ...

    async def freeze_lost(
        self, replica: UUID, heard_since_ms: int, closes_at_ms: int, at_ms: int
    ) -> None: ...

    async def close_due(self, at_ms: int) -> None: ...


class _Asked(NamedTuple):
    """The last time that a lease was asked for, and what had been drawn until then."""

    at_ms: int
    drawn_micros: int
    granted: bool


class LeaseKeeper:
    """`campaigns` gives those that may be shown; `replica` is this process, new at every start.

    A step is due when `wake` is set, because a campaign has run short, and every PERIOD_S.
    """

    def __init__(
        self, book: LeaseBook, ledger: Ledger, campaigns: Callable[[], Iterable[Campaign]], replica: UUID
    ) -> None:
        self._book = book
        self._ledger = ledger
        self._campaigns = campaigns
        self._replica = replica
        self._asked: dict[int, _Asked] = {}
        self.wake = asyncio.Event()
        book.on_short = self.wake.set

    async def step(self, now_ms: int) -> None:
        """Brings the book and the ledger together. Safe to repeat after a failure at any point."""
        self._book.expire(now_ms)
        orphans = self._book.sync(await self._ledger.drawable(self._replica))
        if orphans:
            await self._ledger.freeze(dict.fromkeys(orphans, now_ms), now_ms)
        running = {campaign.id: campaign for campaign in self._campaigns() if _runs(campaign, now_ms)}
        for campaign in running.values():
            await self._supply(campaign, now_ms)
        await self._retire({campaign.id: campaign.event_bid_micros for campaign in running.values()}, now_ms)
        await self._ledger.freeze_lost(
            self._replica, now_ms - LOST_AFTER_MS, now_ms + TICKET_TTL_MAX_MS + GRACE_MS, now_ms
        )
        await self._ledger.close_due(now_ms)

    async def stop(self, now_ms: int) -> None:
        """Draws no more. What no ticket can claim goes back now, the rest when another process finds it due."""
        await self._retire({}, now_ms)
        await self._ledger.close_due(now_ms)

    async def _retire(self, least_micros: Mapping[int, int], now_ms: int) -> None:
        retired = self._book.retire(least_micros, now_ms)
        if retired:
            await self._ledger.freeze(retired, now_ms)
            self._book.forget(retired)

    async def _supply(self, campaign: Campaign, now_ms: int) -> None:
        drawn_micros = self._book.drawn_micros(campaign.id)
        asked = self._asked.get(campaign.id)
        if asked is not None and not asked.granted and now_ms < asked.at_ms + ASK_AGAIN_MS:
            return
        wanted_micros = _wanted_micros(campaign, asked, drawn_micros, now_ms)
        remaining_micros = self._book.remaining_micros(campaign.id, now_ms)
        # Of a click a decision holds a fraction; of anything else the whole bid, for which a rest may not do.
        does = campaign.billable == "click" or remaining_micros >= campaign.event_bid_micros
        if does and 2 * remaining_micros >= wanted_micros:
            return
        day = local_day(now_ms, campaign.zone)
        lease = await self._ledger.take(
            campaign.id, day, wanted_micros, campaign.event_bid_micros, self._replica, now_ms
        )
        self._asked[campaign.id] = _Asked(now_ms, drawn_micros, lease is not None)
        if lease is not None:
            self._book.add(Lease(lease[0], campaign.id, day.toordinal(), lease[1], _end_ms(day, campaign)))


def _runs(campaign: Campaign, now_ms: int) -> bool:
    return campaign.starts_at_ms <= now_ms and (campaign.ends_at_ms is None or now_ms < campaign.ends_at_ms)


def _wanted_micros(campaign: Campaign, asked: _Asked | None, drawn_micros: int, now_ms: int) -> int:
    """A supply for some seconds, at least some events' worth, at most a part of the day's budget, never below one
    event."""
    event_micros = campaign.event_bid_micros
    wanted = EVENTS_PER_LEASE_MIN * event_micros
    if asked is not None:
        elapsed_ms = max(PERIOD_S * SECOND_MS, now_ms - asked.at_ms)
        wanted = max(wanted, (drawn_micros - asked.drawn_micros) * SUPPLY_MS // elapsed_ms)
    if campaign.budget_daily_micros is not None:
        wanted = min(wanted, campaign.budget_daily_micros // LEASES_PER_DAY_MIN)
    return max(wanted, event_micros)


def _end_ms(day: date, campaign: Campaign) -> int:
    return to_ms(datetime.combine(day + timedelta(days=1), time.min, campaign.zone))
