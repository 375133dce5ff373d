"""What a replica reads bit by bit against what one reads that has just started."""

import asyncio
from collections.abc import Iterator
from datetime import datetime, timedelta
from random import Random
from typing import Any, cast
from uuid import UUID

import asyncpg
import pytest
from waiting import until_a_lock_is_waited_for
from world import NOW_MS, World, superuser

from adserve.catalogue.snapshot import EMPTY, Snapshot
from adserve.database.pools import Pools
from adserve.domain.events import Outcome
from adserve.domain.time import HOUR_MS, from_ms
from adserve.store.catalogue import SQL, Catalogue
from loadtest.market import brands
from loadtest.planting import plant_brands

MEDIA = "a" * 64
CHANGES = 120

ADD = {
    "advertisers": "INSERT INTO advertisers (name) VALUES ('a') RETURNING id",
    "campaigns": """
INSERT INTO campaigns (advertiser_id, name, objective, starts_at, time_zone, bid_model, bid_micros, currency, billable,
                       pacing, priority, targeting, caps)
VALUES ($1, 'c', 'reach', '2020-01-01', 'UTC', 'cpm', 1000, 'USD', 'impression', 'asap', 'auction',
        '{"countries": ["ID"], "exclude": {"platforms": ["web"]}}', '[{"scope": "all", "count": 3, "window_s": 60}]')
RETURNING id""",
    "creatives": """
INSERT INTO creatives (advertiser_id, kind, media, headline, call_to_action, landing_url)
VALUES ($1, 'image', $2, 'h', 'shop_now', 'https://example.org') RETURNING id""",
    "ads": "INSERT INTO ads (advertiser_id, campaign_id, creative_id) VALUES ($1, $2, $3) RETURNING id",
}

EDITS = (
    "UPDATE advertisers SET name = $2 WHERE id = $1",
    "UPDATE advertisers SET status = CASE status WHEN 'active' THEN 'paused' ELSE 'active' END WHERE id = $1 AND $2 <> ''",
    "UPDATE campaigns SET name = $2 WHERE id = $1",
    "UPDATE campaigns SET status = CASE status WHEN 'active' THEN 'paused' ELSE 'active' END WHERE id = $1 AND $2 <> ''",
    "UPDATE campaigns SET ends_at = $3::timestamptz + random() * interval '2 hours' WHERE id = $1 AND $2 <> ''",
    "UPDATE creatives SET headline = $2, revision = revision + 1 WHERE id = $1",
    "UPDATE creatives SET status = CASE status WHEN 'active' THEN 'paused' ELSE 'active' END WHERE id = $1 AND $2 <> ''",
    "UPDATE ads SET status = CASE status WHEN 'active' THEN 'archived' ELSE 'active' END WHERE id = $1 AND $2 <> ''",
    "DELETE FROM ads WHERE id = $1 AND $2 <> ''",
)


class Shop:
    """Advertisers, campaigns, creatives and ads in a database, which are added to and edited by chance."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self.connection = connection
        self._ids: dict[str, list[tuple[int, int]]] = {table: [] for table in ADD}

    async def add(self, table: str, chance: Random) -> int:
        if table == "advertisers":
            made = await self.connection.fetchval(ADD[table])
            self._ids[table].append((made, made))
            return int(made)
        _, owner = chance.choice(self._ids["advertisers"])
        values: list[Any] = [owner]
        if table == "creatives":
            values.append(MEDIA)
        if table == "ads":
            for part in ("campaigns", "creatives"):
                own = [number for number, of in self._ids[part] if of == owner]
                values.append(chance.choice(own) if own else 0)
            if 0 in values:
                return 0
        made = await self.connection.fetchval(ADD[table], *values)
        self._ids[table].append((made, owner))
        return int(made)

    async def edit(self, chance: Random, now_ms: int) -> None:
        statement = chance.choice(EDITS)
        table = next(table for table in ADD if f" {table} " in statement)
        number, _ = chance.choice(self._ids[table])
        values = [number, f"called {chance.random()}", from_ms(now_ms)]
        await self.connection.execute(statement, *values[: 3 if "$3" in statement else 2])


@pytest.fixture
async def shop(database_url: str) -> Any:
    connection = await superuser(database_url)
    await connection.execute("INSERT INTO media VALUES ($1, 'image/webp', 1, 1080, 1920)", MEDIA)
    yield Shop(connection)
    await connection.close()


@pytest.fixture
def catalogue(pools: Pools) -> Catalogue:
    return Catalogue(pools.catalogue, UUID(int=1))


async def stocked(shop: Shop, ads: int) -> None:
    chance = Random(1)
    for table in ("advertisers", "campaigns", "creatives", "ads"):
        for _ in range(1 if table == "advertisers" else ads):
            await shop.add(table, chance)


def contents(snapshot: Snapshot) -> dict[str, Any]:
    """Ads compare by identity, so by what is in them here."""
    return {
        "version": snapshot.version,
        "ads": [(ad.id, ad.advertiser, ad.advertiser_name, ad.campaign, ad.creative) for ad in snapshot.ads],
        "campaigns": dict(snapshot.campaigns),
    }


@pytest.mark.parametrize("seed", range(4))
async def test_what_is_read_change_by_change_is_what_is_there(
    shop: Shop, catalogue: Catalogue, seed: int
) -> None:
    chance, now_ms = Random(seed), NOW_MS
    for table in ADD:
        await shop.add(table, chance)
    known, sizes = EMPTY, set()
    for _ in range(CHANGES):
        for _ in range(chance.choice((0, 1, 1, 3))):
            if chance.random() < 0.5:
                await shop.add(chance.choice(("campaigns", "creatives", "ads", "ads")), chance)
            else:
                await shop.edit(chance, now_ms)
        now_ms += chance.choice((0, 0, HOUR_MS // 4))
        before, known = known, await catalogue.load(known, now_ms)
        fresh = await catalogue.load(EMPTY, now_ms)
        if known.version != before.version:
            assert contents(known) == contents(fresh)
        assert all(known.campaigns[ad.campaign.id] is ad.campaign for ad in known.ads)
        assert {id(ad) for ad in known.news} == {id(ad) for ad in known.ads} - {id(ad) for ad in before.ads}
        sizes.add(len(known.ads))
    assert len(sizes) > 3


async def test_what_did_not_change_stays_the_same_object(shop: Shop, catalogue: Catalogue) -> None:
    await stocked(shop, 20)
    first = await catalogue.load(EMPTY, NOW_MS)
    await shop.connection.execute(
        "UPDATE creatives SET headline = 'new' WHERE id = $1", first.ads[5].creative.id
    )
    touched = {ad.id for ad in first.ads if ad.creative.id == first.ads[5].creative.id}
    second = await catalogue.load(first, NOW_MS)
    changed = {new.id for old, new in zip(first.ads, second.ads, strict=True) if old is not new}
    assert changed == touched == {ad.id for ad in second.news}
    assert all(second.campaigns[number] is campaign for number, campaign in first.campaigns.items())
    await shop.connection.execute("INSERT INTO rollouts VALUES ('status', 500, 0)")
    third = await catalogue.load(second, NOW_MS)
    assert third.version > second.version
    assert third.ads is second.ads


async def test_equal_parts_are_one_object(shop: Shop, catalogue: Catalogue) -> None:
    await stocked(shop, 3)
    first, second = [*(await catalogue.load(EMPTY, NOW_MS)).campaigns.values()][:2]
    assert first.id != second.id
    assert first.targeting is second.targeting
    assert first.caps is second.caps


async def test_a_change_reads_few_rows_through_indexes(
    database_url: str, shop: Shop, catalogue: Catalogue
) -> None:
    await plant_brands(database_url, MEDIA, brands(6_000, 1))
    known = await catalogue.load(EMPTY, NOW_MS)
    await shop.connection.execute(
        "UPDATE campaigns SET name = 'other' WHERE id = $1", known.ads[0].campaign.id
    )
    statement = await shop.connection.prepare(SQL.changed_ads)
    plan = await statement.explain(known.version, from_ms(NOW_MS), from_ms(NOW_MS))
    assert list(sequential(plan[0]["Plan"])) == []


def sequential(node: dict[str, Any]) -> Iterator[str]:
    """The big tables that a plan reads from end to end."""
    if node["Node Type"] == "Seq Scan" and node["Relation Name"] in ("ads", "campaigns", "creatives"):
        yield node["Relation Name"]
    for child in node.get("Plans", ()):
        yield from sequential(child)


async def races(database_url: str, shop: Shop, catalogue: Catalogue) -> bool:
    """Whether a reader finds both of two changes of which the first began earlier and committed later."""
    await stocked(shop, 8)
    known = await catalogue.load(EMPTY, NOW_MS)
    slow, quick = await superuser(database_url), await superuser(database_url)
    try:
        rename = "UPDATE campaigns SET name = $2 WHERE id = $1"
        one, other = list(known.campaigns)[:2]
        transaction = slow.transaction()
        await transaction.start()
        await slow.execute(rename, one, "slow")
        changing = asyncio.create_task(quick.execute(rename, other, "quick"))
        locked = asyncio.create_task(until_a_lock_is_waited_for(database_url))
        await asyncio.wait({changing, locked}, return_when=asyncio.FIRST_COMPLETED)
        known = await catalogue.load(known, NOW_MS)
        await transaction.commit()
        await changing
        known = await catalogue.load(known, NOW_MS)
    finally:
        await slow.close()
        await quick.close()
    return contents(known) == contents(await catalogue.load(EMPTY, NOW_MS))


async def test_a_change_that_commits_late_is_not_missed(
    database_url: str, shop: Shop, catalogue: Catalogue
) -> None:
    assert await races(database_url, shop, catalogue)


async def test_control_versions_that_nobody_waits_for_miss_it(
    database_url: str, shop: Shop, catalogue: Catalogue
) -> None:
    """A sequence counts without a lock, so a version can become visible before the one below it."""
    await shop.connection.execute("""
        CREATE SEQUENCE unlocked START 100;
        CREATE OR REPLACE FUNCTION stamp_change() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN NEW.changed_in := nextval('adserve.unlocked'); RETURN NEW; END $$;
        CREATE OR REPLACE FUNCTION catalogue_changed() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RETURN NULL; END $$;
        ALTER TABLE catalogue_version RENAME TO counted;
        CREATE VIEW catalogue_version AS SELECT last_value AS version, 1::bigint AS whole_from FROM unlocked;
        GRANT SELECT ON catalogue_version TO adserve_catalogue;""")
    assert not await races(database_url, shop, catalogue)


async def test_hides_and_reports_are_counted_beside_the_impressions(
    world: World, catalogue: Catalogue
) -> None:
    lease = await world.lease(100_000)
    hidden, seen, late = (world.ticket(lease) for _ in range(3))
    other = world.ticket(lease, ad=13)
    await world.journal.settle(
        [world.event(ticket) for ticket in (hidden, seen, other)]
        + [world.event(hidden, kind, Outcome.UNBILLED_KIND) for kind in ("hide", "report", "click")]
        + [world.event(late, kind, Outcome.LATE) for kind in ("impression", "hide")]
    )
    hour_ms = NOW_MS // HOUR_MS * HOUR_MS
    counted = await catalogue.hide_counts(hour_ms, hour_ms + HOUR_MS)
    assert sorted(map(tuple, counted)) == [(12, 2, 2), (13, 1, 0)]
    assert await catalogue.hide_counts(hour_ms + HOUR_MS, hour_ms + 2 * HOUR_MS) == []


async def test_clicks_of_many_days_are_counted_once_and_a_day_at_a_time(
    world: World, database_url: str
) -> None:
    hour_ms, asked = NOW_MS // HOUR_MS * HOUR_MS, []
    count = "INSERT INTO rollup_deltas VALUES ($1, 1, 1, $2, 'USD', $3, $4, $5, 0)"
    connection = await superuser(database_url)
    try:
        for hours in range(0, 75, 3):
            at = from_ms(hour_ms - hours * HOUR_MS)
            await connection.execute(count, at, 12, "impression", "unbilled_kind", 10)
            await connection.execute(count, at, 12 if hours else 13, "click", "recorded", 1)
            await connection.execute(count, at, 12, "click", "late", 1)
    finally:
        await connection.close()

    class Pool:
        async def fetch(self, statement: str, start: datetime, end: datetime) -> Any:
            asked.append(end - start)
            return await world.pools.catalogue.fetch(statement, start, end)

    catalogue = Catalogue(cast(Any, Pool()), UUID(int=9))
    counted = await catalogue.click_counts(hour_ms - 72 * HOUR_MS + 1, hour_ms + 1)
    assert counted == {12: (240, 23), 13: (0, 1)}
    assert await catalogue.click_counts(hour_ms + 1, hour_ms + HOUR_MS) == {}
    assert max(asked) == timedelta(days=1)
