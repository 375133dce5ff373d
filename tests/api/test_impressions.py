import csv
import io
import json
from typing import Any

import pytest
from service import Service
from test_bad_input import DECISION

from adserve.database.pools import Pools
from adserve.domain.time import from_ms
from adserve.store import impressions
from adserve.store.impressions import SQL
from adserve.web.paging import encode_cursor

NDJSON, CSV = "application/x-ndjson", "text/csv"


async def log_of(service: Service, clock: Any, viewers: int = 5, platform: str = "android") -> dict[str, int]:
    """One impression and one click for each viewer, a second apart."""
    ids = await service.plant()
    await service.go_live()
    for n in range(viewers):
        clock.advance(1_000)
        ask = {
            "viewer": f"u-{n}",
            "feed_length": 9,
            "max_ads": 1,
            "context": {"platform": platform, "country": "ID"},
        }
        placements = (await service.call("POST", "/v1/slots", ask, key="feed")).body["placements"]
        events = [{"ticket": placements[0]["ticket"], "kind": kind} for kind in ("impression", "click")]
        assert (await service.call("POST", "/v1/events", {"events": events}, key="feed")).status == 200
    return ids


async def test_the_log_has_what_was_sold(service: Service, clock: Any) -> None:
    ids = await log_of(service, clock, viewers=1)
    (row,) = (await service.call("GET", "/v1/impressions", key="analyst")).body["items"]
    assert {name: row[name] for name in ids} == ids
    assert (row["kind"], row["outcome"], row["country"], row["platform"]) == (
        "impression",
        "recorded",
        "ID",
        "android",
    )
    assert row["billed"] == row["price"]
    assert row["received_at"] == "2026-01-01T00:00:01Z"
    assert "viewer" not in row


async def test_filters_and_pages(service: Service, clock: Any) -> None:
    ids = await log_of(service, clock)

    async def count(query: str) -> int:
        reply = await service.call("GET", f"/v1/impressions?{query}", key="analyst")
        assert reply.status == 200, reply
        return len(reply.body["items"])

    for query, rows in (
        ("", 5),
        ("kind=any", 10),
        ("kind=click", 5),
        (f"campaign={ids['campaign']}&ad={ids['ad']}&advertiser={ids['advertiser']}", 5),
        ("campaign=999", 0),
        ("country=ID&platform=android&surface=status&outcome=recorded", 5),
        ("country=SG", 0),
        ("outcome=late", 0),
        ("from=2026-01-01T00:00:03Z", 3),
        ("from=2026-01-01T00:00:02Z&to=2026-01-01T00:00:04Z", 2),
        ("to=2026-01-01T00:00:01Z", 0),
    ):
        assert await count(query) == rows, query

    seen, after = [], ""
    while after is not None:
        page = (await service.call("GET", f"/v1/impressions?kind=any&limit=3{after}", key="analyst")).body
        seen += [row["event"] for row in page["items"]]
        after = page["next"] and f"&after={page['next']}"
    assert len(seen) == len(set(seen)) == 10


async def test_clicks_without_an_impression_are_found_whichever_came_first(
    service: Service, clock: Any
) -> None:
    ids = await log_of(service, clock, viewers=1)
    ask = {"feed_length": 9, "max_ads": 1}
    tickets = []
    for viewer in ("never", "later"):
        reply = await service.call("POST", "/v1/slots", ask | {"viewer": viewer}, key="feed")
        tickets.append(reply.body["placements"][0]["ticket"])
    for reported in (
        [(tickets[0], "click"), (tickets[0], "hide"), (tickets[1], "click")],
        [(tickets[1], "impression")],
    ):
        clock.advance(1_000)
        events = [{"ticket": ticket, "kind": kind} for ticket, kind in reported]
        assert (await service.call("POST", "/v1/events", {"events": events}, key="feed")).status == 200
    owner = await service.issue("advertiser", advertiser=ids["advertiser"])
    for key in ("analyst", owner):
        reply = await service.call("GET", "/v1/impressions?kind=click&without_impression=true", key=key)
        (row,) = reply.body["items"]
        events = (await service.call("GET", f"/v1/events/{tickets[0]}", key="feed")).body["events"]
        assert {one["event"]: one["kind"] for one in events}[row["event"]] == row["kind"] == "click"


async def test_what_takes_too_long_to_find_is_said(
    service: Service, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await log_of(service, clock, viewers=1)
    between = {"from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z"}
    export = await service.made("/v1/exports", between, key="analyst")
    monkeypatch.setattr(impressions, "PATIENCE_MS", 50)
    monkeypatch.setattr(
        impressions.SQL, "page", "SELECT pg_sleep(9), " + impressions.SQL.page[len("SELECT ") :]
    )
    slow = await service.call("GET", "/v1/impressions", key="analyst")
    assert (slow.status, slow.fields) == (400, ["?from"])
    assert (await service.call("GET", export["url"], key="analyst")).status == 400


async def test_ndjson_and_csv_have_the_rows_and_cursor_of_json(service: Service, clock: Any) -> None:
    await log_of(service, clock)
    path = "/v1/impressions?limit=3"
    page = (await service.call("GET", path, key="analyst")).body
    lines = await service.call("GET", path, key="analyst", Accept=NDJSON)
    assert lines.headers["Content-Type"] == f"{NDJSON}; charset=utf-8"
    assert [json.loads(line) for line in lines.raw.splitlines()] == page["items"]
    table = await service.call("GET", path, key="analyst", Accept=f"{CSV}, */*")
    rows = list(csv.DictReader(io.StringIO(table.raw.decode())))
    assert [row["event"] for row in rows] == [item["event"] for item in page["items"]]
    assert [int(row["billed_micros"]) for row in rows] == [item["billed"]["micros"] for item in page["items"]]
    link = table.headers["Link"]
    assert link == lines.headers["Link"] == f'</v1/impressions?limit=3&after={page["next"]}>; rel="next"'
    for told in (lines, table):
        assert int(told.headers["Content-Length"]) == len(told.raw), "whoever got less knows it"
    rest = await service.call("GET", link[1 : link.index(">")], key="analyst", Accept=CSV)
    assert len(rest.raw.decode().splitlines()) == 1 + 2
    assert "Link" not in rest.headers


async def test_a_cell_is_never_a_formula(service: Service, clock: Any) -> None:
    await log_of(service, clock, viewers=1, platform='=HYPERLINK("http://evil.test")')
    table = await service.call("GET", "/v1/impressions", key="analyst", Accept=CSV)
    (row,) = csv.DictReader(io.StringIO(table.raw.decode()))
    assert row["platform"] == '\'=HYPERLINK("http://evil.test")'


async def test_bad_questions_are_named(service: Service) -> None:
    for query, field in (
        ("from=yesterday", "?from"),
        ("from=2026-01-01T00:00:00", "?from"),
        ("from=0001-01-01T00:00:00Z", "?from"),
        ("from=253402300800", "?from"),
        ("to=1767225600", "?to"),
        ("to=null", "?to"),
        ("from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z", "?to"),
        ("kind=stare", "?kind"),
        ("outcome=refusal", "?outcome"),
        ("campaign=x", "?campaign"),
        ("campaign=null", "?campaign"),
        ("campaign=2e1", "?campaign"),
        ("campaign=99999999999999999999", "?campaign"),
        ("country=id", "?country"),
        ("platform=a%00b", "?platform"),
        ("platform=%ff", "?platform"),
        ("limit=0", "?limit"),
        ("limit=1&limit=2", "?limit"),
        ("after=x", "?after"),
        (f"after={encode_cursor('0001-01-01T00:00:00+23:00', DECISION)}", "?after"),
        (f"after={encode_cursor('9999-12-31T23:59:59-23:00', DECISION)}", "?after"),
        ("viewer=u-1", "?viewer"),
    ):
        reply = await service.call("GET", f"/v1/impressions?{query}", key="analyst")
        assert (reply.status, reply.fields) == (400, [field]), query


async def test_a_page_of_the_log_is_read_from_its_index(pools: Pools, service: Service, clock: Any) -> None:
    await log_of(service, clock)
    async with pools.analyst.acquire() as connection, connection.transaction():
        await connection.execute("SET LOCAL enable_seqscan = off")
        await connection.execute("SET LOCAL plan_cache_mode = force_generic_plan")
        after = [from_ms(clock()), None]
        plan = await connection.fetch("EXPLAIN " + SQL.page, 100, *after, *[None] * 11, True)
    text = "\n".join(row[0] for row in plan)
    assert "Index Cond: ((received_at >=" in text
    assert "->  Sort" not in text
