"""One campaign with everything that its delivery hangs on, as its owner may read it."""

from typing import NamedTuple

from adserve.domain.ads import Ad, Campaign, Creative
from adserve.domain.ids import AdId, CreativeId
from adserve.domain.time import HOUR_MS, from_ms, local_day, to_ms
from adserve.reporting.diagnosis import AdFacts, Passed, Uses
from adserve.reporting.funnel import coverage
from adserve.store import funnel, ledger
from adserve.store.catalogue import campaign_from_row, creative_from_row
from adserve.store.desk import Connection
from adserve.store.errors import Missing
from adserve.store.funnel import Filters, Place
from adserve.store.statements import load

SQL = load("dossier")

ADS_MAX = 200
"""So many ads of a campaign are looked at, first those that may be shown."""
HOURS = 24
COVERED_MIN = 0.9
"""Of each hour: a new version is started within that."""


class Dossier(NamedTuple):
    """`ads` are those that are not archived, nor their creatives; `statuses` has all."""

    campaign: Campaign
    status: str
    advertiser_status: str
    created_at_ms: int
    ads: tuple[Ad, ...]
    statuses: tuple[AdFacts, ...]


async def dossier(connection: Connection, campaign_id: int) -> Dossier:
    """Raises Missing for a campaign that is not the caller's."""
    row = await connection.fetchrow(SQL.campaign, campaign_id)
    if row is None:
        raise Missing(f"campaigns has no {campaign_id}")
    campaign = campaign_from_row(row)
    rows = await connection.fetch(SQL.ads, campaign_id, ADS_MAX)
    return Dossier(
        campaign,
        row["status"],
        row["advertiser_status"],
        to_ms(row["created_at"]),
        tuple(
            Ad(AdId(ad["id"]), campaign.advertiser, row["advertiser_name"], campaign, creative_from_row(ad))
            for ad in rows
            if "archived" not in (ad["status"], ad["creative_status"])
        ),
        tuple(
            AdFacts(ad["id"], ad["status"], ad["creative_id"], ad["creative_status"], ad["review"])
            for ad in rows
        ),
    )


def stand_in(campaign: Campaign) -> Ad:
    """For a campaign without ads: of one that nobody has seen yet."""
    creative = Creative(CreativeId(0), 0, "image", "", 0, 0, "", "", "", "")
    return Ad(AdId(0), campaign.advertiser, "", campaign, creative)


async def uses(connection: Connection, campaign: Campaign, now_ms: int) -> Uses:
    """Of the day in the campaign's time zone."""
    day = local_day(now_ms, campaign.zone)
    leased = await connection.fetchrow(SQL.uses, campaign.id, day)
    held = await connection.fetchrow(SQL.held, campaign.advertiser, campaign.id, day)
    return Uses(
        day_spent_micros=leased["day_micros"] - held["day_micros"],
        day_held_micros=held["day_micros"],
        total_spent_micros=leased["total_micros"] - held["total_micros"],
        total_held_micros=held["total_micros"],
    )


async def funds_micros(connection: Connection, campaign: Campaign) -> int:
    """What the advertiser may still set aside in the campaign's currency."""
    for of in await ledger.balances(connection, campaign.advertiser):
        if of.currency == campaign.currency:
            return of.available_micros + of.promotional_micros + of.credit_line_micros - of.owed_micros
    return 0


class Counted(NamedTuple):
    """The HOURS full hours up to now. `passed` is None where nothing was counted; `whole` says that nothing of them was missed."""

    since_ms: int
    passed: Passed | None
    whole: bool


async def counted(connection: Connection, campaign: Campaign, now_ms: int) -> Counted:
    end_ms = now_ms - now_ms % HOUR_MS
    hours_ms = range(end_ms - HOURS * HOUR_MS, end_ms, HOUR_MS)
    filters = Filters(from_ms(hours_ms.start), from_ms(end_ms), campaign.id)
    rows = await funnel.page(connection, filters, Place(filters.hour_from, 0), HOURS)
    spans = await funnel.spans(connection, filters.hour_from)
    known = [row for row in rows if row["eligible"] is not None]
    sums = [sum(row[step] for row in known) for step in Passed.__struct_fields__]
    whole = all(
        hour.covered_ms >= COVERED_MIN * HOUR_MS and not hour.gaps
        for hour in coverage(spans, hours_ms, now_ms)
    )
    return Counted(hours_ms.start, Passed(*sums) if known else None, whole)
