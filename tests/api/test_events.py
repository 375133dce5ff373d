import asyncio
from functools import partial
from typing import Any

import orjson
from service import Service

from adserve.domain.time import HOUR_MS
from adserve.web.lane import Lane

HEAD = b"POST /v1/events HTTP/1.1\r\nAuthorization: Bearer %b\r\nContent-Type: application/json\r\n\r\n"
FEED = {"viewer": "u-1", "feed_length": 12, "max_ads": 1}


class Guest:
    """A connection that waits for the lane."""

    received_s = 0.0
    gone = False

    def __init__(self) -> None:
        self.answered: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()

    def answer(self, request: bytes, response: bytes | None) -> None:
        self.answered.set_result(response)


async def placed(service: Service, **ask: Any) -> dict[str, Any]:
    reply = await service.call("POST", "/v1/slots", FEED | ask, key="feed")
    placement: dict[str, Any] = reply.body["placements"][0]
    return placement


async def report(service: Service, *events: Any) -> list[dict[str, Any]]:
    reply = await service.call("POST", "/v1/events", {"events": events}, key="feed")
    assert reply.status == 200, reply
    results: list[dict[str, Any]] = reply.body["results"]
    return results


async def test_an_impression_is_billed_once(service: Service) -> None:
    await service.plant()
    await service.go_live()
    ticket = (await placed(service))["ticket"]
    impression = {"ticket": ticket, "kind": "impression", "view_ms": 1_200}
    first, again = await report(service, impression, impression)
    assert first["outcome"] == "recorded"
    assert first["billed"]["currency"] == "USD"
    assert 1 <= first["billed"]["micros"] <= 2_000
    assert (again["outcome"], again["event"], again["billed"]) == ("duplicate", first["event"], None)
    kept = await service.call("GET", f"/v1/events/{ticket}", key="feed")
    assert kept.body == {
        "events": [
            {
                "event": first["event"],
                "kind": "impression",
                "outcome": "recorded",
                "billed": first["billed"],
            }
        ]
    }


async def test_each_bad_event_is_refused_in_its_place(service: Service) -> None:
    await service.plant()
    await service.go_live()
    ticket = (await placed(service))["ticket"]
    results = await report(
        service,
        {"ticket": "forged", "kind": "view"},
        {"ticket": ticket, "kind": "stare"},
        {"ticket": ticket, "kind": "view", "viewed": 1},
        {"kind": "view"},
        7,
        {"ticket": ticket, "kind": "view", "occurred_at": "2026-01-01T00:00:00"},
        {"ticket": ticket, "kind": "view", "view_ms": -1},
        {"ticket": ticket, "kind": "view", "occurred_at": "2026-01-01T00:00:00Z"},
    )
    assert [result["outcome"] for result in results] == ["refused"] * 7 + ["unbilled_kind"]
    assert [result["errors"][0]["field"] for result in results[:7]] == [
        "$.ticket",
        "$.kind",
        "$.viewed",
        "$.ticket",
        "$",
        "$.occurred_at",
        "$.view_ms",
    ]
    assert {result["event"] for result in results[:7]} == {None}


async def test_a_clock_that_is_decades_off_costs_no_impression(service: Service) -> None:
    await service.plant()
    await service.go_live()
    for nth, moment in enumerate(("1970-01-01T00:00:10Z", "0001-01-01T00:00:00+23:59")):
        ticket = (await placed(service, viewer=f"u-{nth}"))["ticket"]
        (told,) = await report(service, {"ticket": ticket, "kind": "impression", "occurred_at": moment})
        assert told["outcome"] == "recorded", told
    log = (await service.call("GET", "/v1/impressions", key="analyst")).body["items"]
    assert [row["occurred_at"] for row in log] == [None, None]


async def test_half_an_emoji_spoils_no_event(service: Service) -> None:
    await service.plant()
    await service.go_live()
    ticket = (await placed(service))["ticket"]
    good, cut = (
        b'{"ticket": "%b", "kind": "%b"%b}' % (ticket.encode(), *more)
        for more in ((b"impression", b""), (b"click", rb', "user_agent": "Mozilla/5.0 \ud83d"'))
    )
    reply = await service.call("POST", "/v1/events", b'{"events": [%b, %b, 7]}' % (good, cut), key="feed")
    assert reply.status == 200
    assert [told["outcome"] for told in reply.body["results"]] == ["recorded", "unbilled_kind", "refused"]


async def test_the_short_way_answers_as_the_ordinary_does_and_leaves_refusals_to_it(service: Service) -> None:
    await service.plant()
    await service.go_live()
    tickets = [(await placed(service, viewer=viewer))["ticket"] for viewer in ("u-1", "u-2")]
    (api,) = (one.handle.__self__ for one in service.operations if one.id == "reportEvents")

    lane = Lane(
        partial(api.report_plainly, service.auth),
        lambda: 0.0,
        service.clock,
        body_max_bytes=10_000,
        count=lambda: None,
    )

    async def plainly(body: bytes, key: str = "feed") -> Any:
        head = HEAD % service.keys.get(key, key).encode()
        guest = Guest()
        assert lane.enter(guest, head + body)
        answer = await guest.answered
        return None if answer is None else orjson.loads(answer.partition(b"\r\n\r\n")[2])["results"]

    kinds = [("impression", tickets[0]), ("click", tickets[0]), ("view", "forged")]
    short = await plainly(orjson.dumps({"events": [{"ticket": one, "kind": kind} for kind, one in kinds]}))
    ordinary = await report(
        service, *({"ticket": one.replace(tickets[0], tickets[1]), "kind": kind} for kind, one in kinds)
    )
    assert [one["outcome"] for one in short] == ["recorded", "unbilled_kind", "refused"]
    assert [{**one, "event": None} for one in short] == [{**one, "event": None} for one in ordinary]
    good = orjson.dumps({"events": [{"ticket": tickets[1], "kind": "hide"}]})
    assert await plainly(good, "adserve_unknown") is None
    assert await plainly(good, "analyst") is None
    assert await plainly(b"[]") is None
    await service.pools.recorder.close()
    assert [one["outcome"] for one in await plainly(good)] == ["accepted"]


async def test_only_an_unreadable_envelope_is_a_bad_request(service: Service) -> None:
    for body, field in (
        (b'{"events": [{"ticket": ', "$"),
        (b'{"events": {}}', "$.events"),
        (b'{"event": []}', "$.event"),
        (b'{"events": []}', "$.events"),
        (b'{"events": [' + b",".join([b"{}"] * 1_001) + b"]}", "$.events"),
        (b'{"events": ' + b"[" * 100_000, "$"),
    ):
        reply = await service.call("POST", "/v1/events", body, key="feed")
        assert (reply.status, reply.fields) == (400, [field])
    odd = b'{"events": [{"ticket": "\xff", "kind": "view"}, {"ticket": "\\u0000", "kind": "view"}]}'
    reply = await service.call("POST", "/v1/events", odd, key="feed")
    assert [result["outcome"] for result in reply.body["results"]] == ["refused", "refused"]


async def test_a_late_event_is_kept_and_not_billed(service: Service, clock: Any) -> None:
    await service.plant()
    await service.go_live()
    ticket = (await placed(service, ticket_ttl_s=60))["ticket"]
    clock.advance(HOUR_MS)
    (late,) = await report(service, {"ticket": ticket, "kind": "impression"})
    assert (late["outcome"], late["billed"]) == ("late", None)


async def test_pixels_count_and_say_nothing(service: Service) -> None:
    await service.plant()
    await service.go_live()
    ticket = (await placed(service))["ticket"]
    for method, url in (
        ("GET", f"/i.gif?e={ticket}&override=1&override=%00"),
        ("POST", f"/e.gif?e={ticket}.hide"),
        ("POST", f"/e.gif?e={ticket}.report"),
    ):
        reply = await service.call(method, url, key=None)
        assert (reply.status, reply.headers["Content-Type"]) == (200, "image/gif")
        assert reply.headers["Cache-Control"] == "no-store"
        assert reply.raw.startswith(b"GIF89a")
    kept = await service.call("GET", f"/v1/events/{ticket}", key="feed")
    assert sorted(event["kind"] for event in kept.body["events"]) == ["hide", "impression", "report"]
    for url in ("/i.gif", "/i.gif?e=", f"/i.gif?e={ticket}x", f"/e.gif?e={ticket}.stare", "/e.gif?e=x.hide"):
        reply = await service.call("GET", url, key=None)
        assert (reply.status, reply.fields) == (400, ["?e"])


async def test_a_view_of_a_video_lasts_two_seconds(service: Service) -> None:
    ids = await service.plant(billable="view")
    async with service.pools.operator.acquire() as connection:
        await connection.execute("UPDATE creatives SET kind = 'video' WHERE id = $1", ids["creative"])
    await service.go_live()
    ticket = (await placed(service))["ticket"]
    for view_ms, status in ((1_999, 400), (2_000, 200)):
        reply = await service.call("GET", f"/e.gif?e={ticket}.view&view_ms={view_ms}", key=None)
        assert reply.status == status, reply
    kept = await service.call("GET", f"/v1/events/{ticket}", key="feed")
    assert [(one["kind"], one["outcome"]) for one in kept.body["events"]] == [("view", "recorded")]


async def test_a_click_is_sent_on_whatever_becomes_of_it(service: Service, clock: Any) -> None:
    ids = await service.plant()
    await service.go_live()
    ticket = (await placed(service, ticket_ttl_s=60))["ticket"]
    there = "https://example.com/kopi?a=1&b=%20"

    async def leads() -> str:
        reply = await service.call("GET", f"/r?e={ticket}&utm=1&utm=2&q=caf%E9&x=%00", key=None)
        assert (reply.status, reply.headers["Cache-Control"]) == (302, "no-store")
        return reply.headers["Location"]

    assert await leads() == there
    assert await leads() == there  # a duplicate
    changed = {"landing_url": "https://example.com/elsewhere"}
    path = f"/v1/creatives/{ids['creative']}"
    assert (await service.call("PATCH", path, changed, If_Match='"1"')).status == 200
    await service.step()
    service.landings._urls.clear()
    assert await leads() == there  # the revision that was shown, from the database
    clock.advance(HOUR_MS)
    assert await leads() == there  # late
    await service.recorder.drain()
    assert await leads() == there  # cannot be recorded
    kept = await service.call("GET", f"/v1/events/{ticket}", key="feed")
    assert [event["kind"] for event in kept.body["events"]] == ["click"]


async def test_a_click_is_sent_on_without_postgresql(service: Service) -> None:
    await service.plant()
    await service.go_live()
    first, second = [(await placed(service, viewer=viewer))["ticket"] for viewer in ("u-1", "u-2")]
    for pool in (service.pools.recorder, service.pools.catalogue):
        await pool.close()
    assert (await service.call("GET", f"/r?e={first}", key=None)).status == 302
    assert (await service.call("GET", f"/i.gif?e={second}", key=None)).status == 200
    kept = await service.call("GET", f"/v1/events/{second}", key="feed")
    assert [(one["kind"], one["outcome"]) for one in kept.body["events"]] == [("impression", "accepted")]
    service.landings._urls.clear()
    assert (await service.call("GET", f"/r?e={first}", key=None)).status == 503


async def test_a_redirect_leads_nowhere_but_to_a_landing_page(service: Service) -> None:
    await service.plant()
    await service.go_live()
    ticket = (await placed(service))["ticket"]
    reply = await service.call(
        "GET", f"/r?e={ticket}&u=https://evil.test&override=https://evil.test", key=None
    )
    assert reply.headers["Location"].startswith("https://example.com/")
    for forged in ("https://evil.test", ticket[:-2], ticket[1:], f"{ticket}.click"):
        reply = await service.call("GET", "/r?e=" + forged, key=None)
        assert (reply.status, reply.fields, "Location" in reply.headers) == (400, ["?e"], False)
    assert (await service.call("HEAD", f"/r?e={ticket}", key=None)).status == 405
