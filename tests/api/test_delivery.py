"""The report of deliveries beside the same figures, added up here from single events."""

import csv
import io
import random
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import asyncpg
import pytest
from service import Service
from world import NOW_MS, World, make_world, superuser

from adserve.database.pools import Pools
from adserve.domain.events import Event, EventKind, Outcome
from adserve.domain.ids import EventId, uuid7
from adserve.domain.time import DAY_MS, HOUR_MS, MINUTE_MS, from_ms
from adserve.domain.traffic import Reason, Verdict
from adserve.reporting.delivery import made_of_hours
from adserve.store import delivery
from adserve.web.paging import encode_cursor

GROUPS = tuple(delivery.COLUMNS)
SUMS = ("impressions", "views", "clicks", "hides")
START_MS = NOW_MS - 12 * HOUR_MS
QUESTIONS = 40
UNCOUNTED = ("late", "over_cap", "invalid_traffic")

Groups = dict[tuple[Any, ...], dict[str, Any]]


async def deliver(world: World, count: int, seed: int = 1) -> tuple[int, int]:
    """Events of all sorts within two days, of two advertisers, who are answered."""
    chance = random.Random(seed)
    other = await world.add_advertiser(1_000_000_000)
    campaigns = [(world.advertiser, world.campaign, await world.lease(10 * 2_500))]
    for advertiser in (world.advertiser, other):
        campaign = await world.add_campaign(advertiser)
        campaigns.append((advertiser, campaign, await world.lease(1_000 * 2_500, campaign)))
    events = []
    for nth in range(count):
        advertiser, campaign, lease = chance.choice(campaigns)
        received_ms = START_MS + chance.randrange(36 * HOUR_MS)
        viewer = chance.choice((b"", *(bytes([n]) * 16 for n in range(6))))
        ticket = world.ticket(
            lease, advertiser=advertiser, campaign=campaign, ad=10 * campaign + chance.randrange(2),
            creative=20 * campaign + chance.randrange(2), country=chance.choice(("ID", "IN", "DE")),
            platform=chance.choice(("android", "=web")), position=chance.randrange(3),
            arm=chance.choice(("exposed", "control")), model=chance.choice(("prior", "lr-1")),
            viewer_cap=viewer, viewer_log=viewer,
            ticket=uuid7(received_ms, nth), issued_at_ms=received_ms - chance.randrange(HOUR_MS),
            expires_at_ms=received_ms + HOUR_MS,
        )  # fmt: skip  # laid out as rows
        for kind in chance.sample(list(EventKind), chance.randrange(1, 5)):
            outcome = Outcome.RECORDED if kind == ticket.billable else Outcome.UNBILLED_KIND
            outcome = chance.choice(
                (outcome,) * 6 + (Outcome.OVER_CAP, Outcome.INVALID_TRAFFIC, Outcome.LATE)
            )
            verdict = Verdict(Reason.DECLARED_BOT if outcome is Outcome.INVALID_TRAFFIC else None, 1)
            id_ = EventId(uuid7(received_ms, chance.getrandbits(74)))
            events.append(Event(id_, kind, ticket, outcome, received_ms, None, None, verdict))
    await world.journal.settle(events)
    return world.advertiser, other


async def raw(connection: asyncpg.Connection) -> list[Mapping[str, Any]]:
    rows: list[Mapping[str, Any]] = await connection.fetch(
        "SELECT e.*, v.viewer FROM events e LEFT JOIN viewer_log v USING (issued_day, ticket_id)"
    )
    return rows


def added_up(
    rows: Sequence[Mapping[str, Any]],
    groups: Sequence[str],
    start: datetime,
    end: datetime,
    zone: str,
    **only: Any,
) -> Groups:
    """By group and currency."""
    found: dict[tuple[Any, ...], list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        place = place_of(row, ZoneInfo(zone))
        if start <= row["received_at"] < end and all(place[name] == value for name, value in only.items()):
            found[*(place[name] for name in groups), row["currency"]].append(row)
    return {place: figures(of) for place, of in found.items() if any(row["outcome"] != "late" for row in of)}


def place_of(row: Mapping[str, Any], zone: ZoneInfo) -> dict[str, Any]:
    local = row["received_at"].astimezone(zone)
    hour = row["received_at"] - timedelta(
        minutes=local.minute, seconds=local.second, microseconds=local.microsecond
    )
    told = {name: row.get(name, row.get(f"{name}_id")) for name in GROUPS}
    return told | {"day": local.date().isoformat(), "hour": hour.isoformat().replace("+00:00", "Z")}


def figures(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    counted = [row for row in rows if row["outcome"] not in UNCOUNTED]
    viewers = [row["viewer"] for row in counted if row["kind"] == "impression"]
    seen = [viewer for viewer in viewers if viewer is not None]
    return {
        **{
            f"{kind}s": sum(row["kind"] == kind for row in counted)
            for kind in ("impression", "view", "click", "hide")
        },
        "spend": {"micros": sum(row["billed_micros"] for row in rows), "currency": rows[0]["currency"]},
        "reach": len(set(seen)) if seen or not viewers else None,
        "frequency": round(len(seen) / len(set(seen)), 4) if seen else None,
    }


async def asked(
    service: Service, key: str, groups: Sequence[str], metrics: Sequence[str], **query: Any
) -> Groups:
    """All pages."""
    given = {"group": ",".join(groups), "metrics": ",".join(metrics), "limit": "7"} | query
    told, after = {}, {}
    while True:
        reply = await service.client.get(
            "/v1/reports/delivery",
            params=given | after,
            headers={"Authorization": f"Bearer {service.keys.get(key, key)}"},
        )
        page = await reply.json()
        assert reply.status == 200, page
        for row in page["items"]:
            told[*(row.pop(name) for name in groups), row.pop("currency")] = row
        if page["next"] is None:
            return told
        after = {"after": page["next"]}


@pytest.fixture
async def world(pools: Pools) -> World:
    return await make_world(pools)


async def compare(
    service: Service, rows: Sequence[Mapping[str, Any]], key: str, seed: int, **only: Any
) -> None:
    """Questions that are drawn, with their answers held to the events."""
    chance = random.Random(seed)
    for _ in range(QUESTIONS):
        groups = chance.sample(GROUPS, chance.randrange(4))
        rolled = chance.random() < 0.5
        metrics = chance.sample((*SUMS, "spend"), 3) + ([] if rolled else ["reach", "frequency"])
        if rolled:
            groups = [name for name in groups if name in delivery.ROLLED_UP]
        zone = chance.choice(("UTC", "Asia/Jakarta", "Asia/Kolkata", "America/New_York"))
        start, end = sorted(
            START_MS + chance.randrange(38) * chance.choice((HOUR_MS, 13 * MINUTE_MS)) for _ in "ab"
        )
        if start == end:
            continue
        between = {"from": from_ms(start).isoformat(), "to": from_ms(end).isoformat()}
        filters = {"country": "ID"} if not rolled and chance.random() < 0.3 else {}
        told = await asked(service, key, groups, metrics, time_zone=zone, **between, **filters)
        wanted = added_up(rows, groups, from_ms(start), from_ms(end), zone, **filters, **only)
        assert told == {place: {name: of[name] for name in metrics} for place, of in wanted.items()}, (
            groups,
            between,
        )


async def test_every_figure_is_that_of_the_events(
    service: Service, world: World, database_url: str, pools: Pools
) -> None:
    mine, _ = await deliver(world, 150)
    connection = await superuser(database_url)
    try:
        rows = await raw(connection)
        await compare(service, rows, "analyst", 1)
        await pools.recorder.fetchval("SELECT compact_rollups(1000)")
        owner = await service.issue("advertiser", advertiser=mine)
        await compare(service, rows, owner, 2, advertiser=mine)
        outcomes = {row["outcome"] for row in rows}
        assert outcomes == set(UNCOUNTED) | {"recorded", "unbilled_kind", "over_budget"}, (
            "all sorts were there"
        )

        await connection.execute(
            "INSERT INTO rollup_deltas SELECT hour, advertiser_id, campaign_id, ad_id, currency, 'impression', 'recorded', 1, 1, 0 "
            "FROM rollups WHERE kind = 'impression'"
        )
        with pytest.raises(AssertionError):
            await compare(service, rows, "analyst", 1)
    finally:
        await connection.close()


async def test_reach_is_counted_by_the_days_of_its_tickets_alone(world: World, database_url: str) -> None:
    connection = await superuser(database_url)
    await connection.execute("SELECT ensure_partitions('2025-12-01', '2025-12-31')")
    explained: Any = SimpleNamespace(
        fetchval=connection.fetchval,
        execute=connection.execute,
        fetch=lambda text, *values: connection.fetch(f"EXPLAIN {text}", *values),
    )
    question = delivery.Question((), ("reach",), {}, NOW_MS, NOW_MS + HOUR_MS, "UTC", True, None, 10)
    async with connection.transaction():
        plan = await delivery.report(explained, question)
    await connection.close()
    opened = re.findall(r" on (\w+)_(\d{8})", "\n".join(line for (line,) in plan))
    assert {table for table, _ in opened} == {"events", "viewer_log"}
    assert {day for _, day in opened} == {"20251231", "20260101"}


async def test_control_without_its_policy_reach_leaks(
    service: Service, world: World, database_url: str
) -> None:
    """The map to viewers of others' tickets is closed to an advertiser, by policy."""
    mine, _ = await deliver(world, 30)
    connection = await superuser(database_url)
    try:
        count = "SELECT count(*) FROM viewer_log"
        own = "SELECT count(DISTINCT ticket_id) FROM events JOIN viewer_log USING (issued_day, ticket_id) WHERE advertiser_id = $1"

        async def seen() -> int:
            async with service.pools.tenant.acquire() as tenant, tenant.transaction():
                await tenant.execute("SELECT set_config('adserve.tenant', $1, true)", str(mine))
                found: int = await tenant.fetchval(count)
            return found

        everything = await connection.fetchval(count)
        assert await seen() == await connection.fetchval(own, mine) < everything
        await connection.execute("ALTER POLICY own ON viewer_log USING (true)")
        assert await seen() == everything
    finally:
        await connection.close()


async def test_requests_are_told_where_the_funnel_counts_them(
    service: Service, world: World, database_url: str
) -> None:
    await deliver(world, 40)
    connection = await superuser(database_url)
    try:
        for hour in range(2):
            await connection.execute(
                "INSERT INTO funnel_hours VALUES ($1, $2, $3, $4, 0, 0, 0, 0, 0)",
                from_ms(START_MS + hour * HOUR_MS), world.campaign, world.advertiser, 100 + hour,
            )  # fmt: skip  # laid out as rows
    finally:
        await connection.close()
    between = {"from": from_ms(START_MS).isoformat(), "to": from_ms(START_MS + 4 * HOUR_MS).isoformat()}

    async def requests(*groups: str, **query: Any) -> dict[tuple[Any, ...], Any]:
        told = await asked(service, "analyst", groups, ["requests", "impressions"], **between, **query)
        return {place: row["requests"] for place, row in told.items()}

    by_campaign = await requests("campaign")
    assert by_campaign.pop((world.campaign, "USD")) == 201
    assert set(by_campaign.values()) == {None}
    assert (await requests("hour", campaign=world.campaign))["2026-01-01T00:00:00Z", "USD"] == 100
    assert set((await requests("hour")).values()) == {None}, (
        "requests of several campaigns are mostly the same ones"
    )
    assert set((await requests("campaign", "country")).values()) == {None}
    by_half_day = await requests("day", "campaign", time_zone="Asia/Kolkata")
    assert set(by_half_day.values()) == {None}


async def test_as_csv_no_cell_is_a_formula_and_a_link_leads_on(service: Service, world: World) -> None:
    await deliver(world, 40)
    path = "/v1/reports/delivery?group=platform,country&metrics=spend,clicks&limit=4&from=2025-12-31T00:00:00Z&to=2026-01-03T00:00:00Z"
    page = (await service.call("GET", path, key="analyst")).body["items"]
    table = await service.call("GET", path, key="analyst", Accept="text/csv")
    rows = list(csv.DictReader(io.StringIO(table.raw.decode())))
    assert list(rows[0]) == ["platform", "country", "currency", "spend_micros", "clicks"]
    assert [int(row["spend_micros"]) for row in rows] == [row["spend"]["micros"] for row in page]
    assert {row["platform"] for row in rows} == {"'=web", "android"}
    link = table.headers["Link"]
    rest = await service.call("GET", link[1 : link.index(">")], key="analyst", Accept="text/csv")
    assert len(rest.raw.decode().splitlines()) == 1 + 2


async def test_what_is_gone_or_takes_too_long_is_said(
    service: Service, world: World, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await deliver(world, 5)
    path = "/v1/reports/delivery?from=2026-01-01T00:00:00Z&to=2026-01-02T00:00:00Z&group="
    sleepy = "SELECT pg_sleep(9), " + delivery.SQL.from_events[len("SELECT ") :]
    with monkeypatch.context() as impatient:
        impatient.setattr(delivery.SQL, "from_events", sleepy)
        impatient.setattr(delivery, "PATIENCE_MS", 50)
        slow = await service.call("GET", f"{path}country", key="analyst")
    assert (slow.status, slow.fields) == (400, ["?from"])
    connection = await superuser(database_url)
    try:
        await connection.execute("INSERT INTO closed_days VALUES ('2025-12-31', 1, 0, 0, sha256(''), now())")
        await connection.execute("ALTER TABLE events DETACH PARTITION events_20251231")
    finally:
        await connection.close()
    gone = await service.call("GET", f"{path}country", key="analyst")
    assert (gone.status, gone.fields) == (400, ["?from"])
    assert "2026-01-02" in gone.body["detail"]
    assert (await service.call("GET", f"{path}campaign", key="analyst")).status == 200


async def test_bad_questions_are_named(service: Service) -> None:
    for query, field in (
        ("group=weather", "?group"),
        ("group=day,day", "?group"),
        ("metrics=joy", "?metrics"),
        ("metrics=", "?metrics"),
        ("time_zone=Mars/Base", "?time_zone"),
        ("from=2020-01-01T00:00:00Z", "?from"),
        ("from=yesterday", "?from"),
        ("from=2099-01-01T00:00:00Z", "?from"),
        ("from=2026-01-01T00:30:00Z&to=2026-01-01T00:00:00Z", "?to"),
        ("position=-1", "?position"),
        ("after=x", "?after"),
        ("group=day&after=WyJub25lIiwiVVNEIl0", "?after"),
        ("group=campaign&after=W251bGwsIlVTRCJd", "?after"),
        (f"group=hour&after={encode_cursor('9999-12-31T23:59:59-23:00', 'USD')}", "?after"),
        (f"group=platform&after={encode_cursor('a' + chr(0), 'USD')}", "?after"),
    ):
        reply = await service.call("GET", f"/v1/reports/delivery?{query}", key="analyst")
        assert (reply.status, reply.fields) == (400, [field]), query
    assert (await service.call("GET", "/v1/reports/delivery", key="feed")).status == 403


def test_days_of_half_hours_are_not_made_of_hours() -> None:
    start_ms = int(datetime(2026, 3, 1, tzinfo=UTC).timestamp()) * 1_000
    assert made_of_hours(start_ms, start_ms + 60 * DAY_MS, ZoneInfo("America/New_York"))
    assert not made_of_hours(start_ms + 1, start_ms + DAY_MS, ZoneInfo("UTC"))
    assert not made_of_hours(start_ms, start_ms + DAY_MS, ZoneInfo("Asia/Kathmandu"))
    howe = ZoneInfo("Australia/Lord_Howe")  # +11:00 in summer, +10:30 in winter
    assert made_of_hours(start_ms, start_ms + DAY_MS, howe)
    assert not made_of_hours(start_ms, start_ms + 60 * DAY_MS, howe)
