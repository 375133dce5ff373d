"""The log of a time as a whole, page for page what /v1/impressions tells."""

import asyncio
import csv
import io
import json
from typing import Any

import pytest
from aiohttp import ClientPayloadError, web
from service import Service
from test_impressions import log_of
from waiting import PATIENCE_S
from world import superuser

from adserve.api import exports
from adserve.store.errors import Away

BETWEEN = {"from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z"}


async def asked(service: Service, key: str = "analyst", **more: Any) -> dict[str, Any]:
    return await service.made("/v1/exports", BETWEEN | more, key=key)


async def test_an_export_is_the_whole_log_of_its_time(
    service: Service, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await log_of(service, clock, viewers=5, platform="=web")
    monkeypatch.setattr(exports, "ROWS_AT_ONCE", 3)
    log = (await service.call("GET", "/v1/impressions?kind=any&limit=100", key="analyst")).body["items"]
    lines = await asked(service, kind="any", format="ndjson")
    told = await service.call("GET", lines["url"], key="analyst")
    assert [json.loads(line) for line in told.raw.splitlines()] == log
    assert len(log) == 10
    table = await service.call(
        "GET", (await asked(service, kind="click"))["url"], key="analyst", Accept="*/*"
    )
    rows = list(csv.DictReader(io.StringIO(table.raw.decode())))
    assert [row["event"] for row in rows] == [row["event"] for row in log if row["kind"] == "click"]
    assert {row["platform"] for row in rows} == {"'=web"}
    assert table.headers["Content-Disposition"].endswith('.csv"')
    nothing = await asked(service, country="SG")
    assert len((await service.call("GET", nothing["url"], key="analyst")).raw.splitlines()) == 1
    said = await service.call("GET", nothing["url"], key="analyst", Accept="application/json")
    assert said.body == nothing
    assert (said.body["asked"]["country"], said.body["asked"]["format"]) == ("SG", "csv")


async def test_an_advertiser_exports_its_own_alone_whoever_fetches_it(service: Service, clock: Any) -> None:
    mine, theirs = await log_of(service, clock, viewers=2), await log_of(service, clock, viewers=3)
    ours = await service.issue("advertiser", advertiser=mine["advertiser"])
    others = await service.issue("advertiser", advertiser=theirs["advertiser"])
    foreign = BETWEEN | {"advertiser": theirs["advertiser"]}
    refused = await service.call("POST", "/v1/exports", foreign, key=ours)
    assert (refused.status, refused.fields) == (404, ["$.advertiser"])
    export = await asked(service, ours, kind="any", format="ndjson")
    for key in (ours, "analyst"):
        told = (await service.call("GET", export["url"], key=key)).raw.splitlines()
        assert {json.loads(line)["advertiser"] for line in told} == {mine["advertiser"]}
    assert (await service.call("GET", export["url"], key=others)).status == 404
    staffs = await asked(service, kind="any")
    assert (await service.call("GET", staffs["url"], key=ours)).status == 404


async def test_what_breaks_off_does_not_look_whole(
    service: Service, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await log_of(service, clock, viewers=3)
    export = await asked(service)
    monkeypatch.setattr(exports, "ROWS_AT_ONCE", 1)
    asked_for: list[Any] = []

    async def breaks(*given: Any) -> Any:
        asked_for.append(given)
        if len(asked_for) == 3:
            raise Away
        return await page(*given)

    page = exports.page
    monkeypatch.setattr(exports, "page", breaks)
    with pytest.raises((ClientPayloadError, ConnectionError)):
        await service.call("GET", export["url"], key="analyst")
    asked_for[:] = [None, None]
    assert (await service.call("GET", export["url"], key="analyst")).status == 503, "nothing was sent yet"
    assert (await service.call("GET", export["url"], key="analyst")).status == 200


async def test_in_the_old_http_nobody_could_tell_what_broke_off(service: Service, clock: Any) -> None:
    await log_of(service, clock, viewers=1)
    export = await asked(service)
    headers = {"Authorization": f"Bearer {service.keys['analyst']}"}
    old = await spoken(service, export["url"], headers, "1.0")
    assert old.startswith(b"HTTP/1.0 426 ")
    assert b"\r\nUpgrade: HTTP/1.1\r\n" in old
    assert b"application/problem+json" in old
    described = await spoken(service, export["url"], {**headers, "Accept": "application/json"}, "1.0")
    assert described.startswith(b"HTTP/1.0 200 ")
    whole = await spoken(service, export["url"], headers, "1.1")
    assert whole.endswith(b"\r\n0\r\n\r\n"), "this is the end that an answer that broke off lacks"


async def spoken(service: Service, path: str, headers: dict[str, str], version: str) -> bytes:
    """What comes back until the connection is closed."""
    reader, writer = await asyncio.open_connection(service.client.host, service.client.port)
    lines = [f"GET {path} HTTP/{version}", "Host: x", "Connection: close", *map(": ".join, headers.items())]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    try:
        return await asyncio.wait_for(reader.read(), PATIENCE_S)
    finally:
        writer.close()


async def test_what_is_gone_from_the_log_is_not_told_as_nothing(
    service: Service, clock: Any, database_url: str
) -> None:
    owner = await service.issue(
        "advertiser", advertiser=(await log_of(service, clock, viewers=1))["advertiser"]
    )
    known = {key: await asked(service, key) for key in ("analyst", owner)}
    connection = await superuser(database_url)
    try:
        await connection.execute("INSERT INTO closed_days VALUES ('2026-01-01', 1, 0, 0, sha256(''), now())")
        await connection.execute("ALTER TABLE events DETACH PARTITION events_20260101")
    finally:
        await connection.close()
    for key, export in known.items():
        told = await service.call("GET", export["url"], key=key)
        assert (told.status, "before 2026-01-03" in told.body["detail"]) == (400, True)
        reply = await service.call("POST", "/v1/exports", BETWEEN, key=key)
        assert (reply.status, reply.fields) == (400, ["$.from"])
        await asked(service, key, **{"from": "2026-01-03T00:00:00Z", "to": "2026-01-04T00:00:00Z"})


async def test_so_many_are_sent_at_once(
    service: Service, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await log_of(service, clock, viewers=1)
    export, go_on = await asked(service), asyncio.Event()
    page = exports.page

    async def waits(*given: Any) -> Any:
        await go_on.wait()
        return await page(*given)

    monkeypatch.setattr(exports, "page", waits)
    sent = [
        asyncio.create_task(service.call("GET", export["url"], key="analyst"))
        for _ in range(exports.STREAMS_MAX)
    ]
    while sum(task.done() for task in sent) == 0:
        reply = await service.call("GET", export["url"], key="analyst", Accept="application/json")
        assert reply.status == 200
        extra = asyncio.create_task(service.call("GET", export["url"], key="analyst"))
        await asyncio.wait({extra, *sent}, timeout=1, return_when=asyncio.FIRST_COMPLETED)
        if extra.done():
            break
        sent.append(extra)
    refused = [task.result() for task in (extra, *sent) if task.done()]
    assert {(reply.status, reply.headers["Retry-After"]) for reply in refused} == {(503, "10")}
    go_on.set()
    answers = await asyncio.gather(*sent)
    assert [reply.status for reply in answers].count(200) == exports.STREAMS_MAX


@pytest.mark.parametrize("stalls", ["write", "write_eof"])
async def test_a_reader_who_takes_nothing_makes_room_for_the_next(
    stalls: str, service: Service, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*_: Any) -> None:
        await asyncio.Event().wait()

    await log_of(service, clock, viewers=1)
    export = await asked(service)
    monkeypatch.setattr(exports, "STREAMS_MAX", 1)
    with monkeypatch.context() as stalled:
        stalled.setattr(exports, "STALLED_S", 0.05)
        stalled.setattr(
            exports.web, "StreamResponse", type("Stalled", (web.StreamResponse,), {stalls: never})
        )
        with pytest.raises((ClientPayloadError, ConnectionError)):
            await service.call("GET", export["url"], key="analyst")
    assert (await service.call("GET", export["url"], key="analyst")).status == 200


async def test_bad_questions_are_named(service: Service) -> None:
    for body, field in (
        ({"to": BETWEEN["to"]}, "$.from"),
        ({"from": BETWEEN["from"]}, "$.to"),
        ({"from": BETWEEN["to"], "to": BETWEEN["from"]}, "$.to"),
        (BETWEEN | {"to": "2026-06-01T00:00:00Z"}, "$.to"),
        (BETWEEN | {"from": "1999-01-01T00:00:00Z"}, "$.from"),
        (BETWEEN | {"kind": "stare"}, "$.kind"),
        (BETWEEN | {"limit": 3}, "$.limit"),
    ):
        reply = await service.call("POST", "/v1/exports", body, key="analyst")
        assert (reply.status, reply.fields) == (400, [field]), body
    assert (await service.call("GET", "/v1/exports/999", key="analyst")).status == 404
    assert (await service.call("POST", "/v1/exports", BETWEEN, key="feed")).status == 403
