"""Reads recorded impressions and clicks for training."""

from datetime import UTC, date, datetime
from typing import Any

import asyncpg

from adserve.domain.facts import facts_of
from adserve.domain.slots import Context
from adserve.domain.time import from_ms, to_ms
from adserve.prediction.features import AdFacts
from adserve.prediction.impressions import Impression
from adserve.store import statements

SQL = statements.load("learning")


class Learning:
    """Plain reads with the analyst role, a day at a time so that no statement runs long."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def days(self) -> tuple[date, date] | None:
        """The first and the last day that events were recorded for."""
        first, last = await self._pool.fetchrow(SQL.days)
        return None if first is None else (first, last)

    async def impressions(self, day: date, now: int) -> list[Impression]:
        """Those of the day's tickets that have expired: the others may still be clicked."""
        month_ms = to_ms(datetime(day.year, day.month, 1, tzinfo=UTC))
        rows = await self._pool.fetch(SQL.impressions, day, from_ms(now))
        return [_from_row(row, month_ms) for row in rows]


def _from_row(row: Any, month_ms: int) -> Impression:
    """The log has another name for a viewer in each month in which tickets are issued."""
    at_ms, chosen_ms = to_ms(row["received_at"]), to_ms(row["issued_at"])
    context = Context(country=row["country"] or None, platform=row["platform"] or None)
    facts = facts_of(context, False, chosen_ms, row["surface"])
    ad = AdFacts(row["ad_id"], row["campaign_id"], row["advertiser_id"], row["kind"], row["call_to_action"])
    return Impression(at_ms, row["viewer"], facts, ad, row["clicked"], month_ms, chosen_ms)
