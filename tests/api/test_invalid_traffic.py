"""Invalid traffic as callers, operators and analysts meet it."""

from typing import Any

from service import Service

from adserve.domain.time import SECOND_MS

BOT = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
FEED = {"viewer": "u-1", "feed_length": 12, "max_ads": 1}
VALID = {"clients_allowed": ["WhatsApp", "okhttp"]}


async def ticket_of(service: Service, viewer: str = "u-1") -> str:
    reply = await service.call("POST", "/v1/slots", FEED | {"viewer": viewer}, key="feed")
    ticket: str = reply.body["placements"][0]["ticket"]
    return ticket


async def report(service: Service, **event: Any) -> dict[str, Any]:
    reply = await service.call("POST", "/v1/events", {"events": [event]}, key="feed")
    assert reply.status == 200, reply
    result: dict[str, Any] = reply.body["results"][0]
    return result


async def outcome_of(service: Service, ticket: str, kind: str = "impression") -> str:
    kept = await service.call("GET", f"/v1/events/{ticket}", key="feed")
    return next(str(event["outcome"]) for event in kept.body["events"] if event["kind"] == kind)


async def test_a_bot_is_answered_stored_and_not_charged(service: Service) -> None:
    await service.plant()
    await service.go_live()
    ticket = await ticket_of(service)
    first = await report(service, ticket=ticket, kind="impression", user_agent=BOT)
    assert (first["outcome"], first["billed"]) == ("invalid_traffic", None)
    again = await report(service, ticket=ticket, kind="impression")
    assert (again["outcome"], again["event"]) == ("duplicate", first["event"])
    click = await report(service, ticket=ticket, kind="click")
    assert click["outcome"] == "invalid_traffic"
    assert await outcome_of(service, ticket) == "invalid_traffic"


async def test_the_log_tells_reason_and_version_and_can_be_asked_for_them(service: Service) -> None:
    await service.plant()
    await service.go_live()
    await report(service, ticket=await ticket_of(service, "u-1"), kind="impression", user_agent=BOT)
    await report(
        service, ticket=await ticket_of(service, "u-2"), kind="impression", user_agent="okhttp/4.12.0"
    )
    rows = (await service.call("GET", "/v1/impressions", key="analyst")).body["items"]
    assert sorted((row["outcome"], row["invalid_reason"], row["traffic_rules"]) for row in rows) == [
        ("invalid_traffic", "declared_bot", 1),
        ("recorded", None, 1),
    ]
    url = "/v1/impressions?invalid_reason="
    assert len((await service.call("GET", f"{url}declared_bot", key="analyst")).body["items"]) == 1
    assert (await service.call("GET", f"{url}data_centre", key="analyst")).body["items"] == []
    assert (await service.call("GET", f"{url}ugly", key="analyst")).fields == ["?invalid_reason"]
    csv = (await service.call("GET", "/v1/impressions", key="analyst", Accept="text/csv")).raw.decode()
    assert csv.splitlines()[0].endswith(
        "arm,invalid_reason,traffic_rules,budget_day,price_micros,billed_micros,currency"
    )


async def test_beacons_are_judged_by_who_fires_them(service: Service) -> None:
    await service.plant()
    await service.go_live()
    for viewer, path, agent, outcome in (
        ("u-1", "/i.gif", BOT, "invalid_traffic"),
        ("u-2", "/i.gif", "WhatsApp/2.26.1 A", "recorded"),
        ("u-3", "/i.gif", "python-requests/2.32.3", "invalid_traffic"),
    ):
        ticket = await ticket_of(service, viewer)
        reply = await service.call("GET", f"{path}?e={ticket}", key=None, User_Agent=agent)
        assert (reply.status, reply.headers["Content-Type"]) == (200, "image/gif")
        assert await outcome_of(service, ticket) == outcome
    ticket = await ticket_of(service, "u-4")
    assert (await service.call("GET", f"/r?e={ticket}", key=None, User_Agent=BOT)).status == 302
    assert await outcome_of(service, ticket, "click") == "invalid_traffic"


async def test_clicks_of_one_address_through_our_proxy(service: Service, clock: Any) -> None:
    await service.plant(
        bid={"model": "cpc", "price": {"micros": 20_000, "currency": "USD"}}, billable="click"
    )
    await service.go_live()
    rate = {"clicks_of_address": {"count": 2, "window_s": 60}}
    assert (await service.call("POST", "/v1/traffic-rules", rate)).status == 201
    await service.rules.step(clock())
    outcomes = []
    for nth, address in enumerate(("81.2.69.142", "81.2.69.142", "81.2.69.142", "81.2.69.143", "10.0.0.1")):
        ticket = await ticket_of(service, f"u-{nth}")
        forwarded = f"6.6.6.6, {address}"
        await service.call("GET", f"/r?e={ticket}", key=None, X_Forwarded_For=forwarded)
        outcomes.append(await outcome_of(service, ticket, "click"))
    assert outcomes == ["recorded", "recorded", "invalid_traffic", "recorded", "recorded"]


async def test_an_invalid_impression_counts_against_the_caps(service: Service) -> None:
    """It was shown in the viewer's name: whoever sends it must not get more ads for it."""
    await service.plant(caps=[{"scope": "campaign", "count": 1, "window_s": 3_600}])
    await service.go_live()
    await report(service, ticket=await ticket_of(service), kind="impression", user_agent=BOT)
    reply = await service.call("POST", "/v1/slots", FEED, key="feed")
    assert (reply.body["placements"], reply.body["no_fill"]) == ([], "frequency_capped")


async def test_what_a_report_may_say_of_its_source(service: Service) -> None:
    await service.plant()
    await service.go_live()
    ticket = await ticket_of(service)
    for field, wrong in (
        ("address", "300.1.2.3"),
        ("address", ""),
        ("user_agent", "x" * 8_193),
        ("device", ""),
        ("device", "x" * 257),
        ("device", 7),
    ):
        refused = await report(service, ticket=ticket, kind="impression", **{field: wrong})
        assert refused["outcome"] == "refused"
        assert [error["field"] for error in refused["errors"]] == [f"$.{field}"]
    source = {"user_agent": "", "address": "2a02:8109::7", "device": "d-1"}
    assert (await report(service, ticket=ticket, kind="impression", **source))["outcome"] == "recorded"


async def test_rules_are_listed_in_every_version(service: Service, clock: Any) -> None:
    rules = await service.call("GET", "/v1/traffic-rules")
    (first,) = rules.body["items"]
    assert (first["version"], first["revision"], first["networks"]) == (1, 1, "")
    assert first["rules"]["clients_allowed"] == ["WhatsApp", "okhttp"]
    clock.advance(SECOND_MS)
    changed = VALID | {"declared_bots": False, "impressions_of_viewer": None}
    reply = await service.call("POST", "/v1/traffic-rules", changed, Idempotency_Key="k")
    again = await service.call("POST", "/v1/traffic-rules", changed, Idempotency_Key="k")
    assert reply.status == 201
    assert again.body == reply.body
    assert reply.body["revision"] == 2
    assert reply.body["rules"]["impressions_of_viewer"] is None
    page = await service.call("GET", "/v1/traffic-rules?limit=1")
    assert page.body["items"] == [reply.body]
    rest = await service.call("GET", f"/v1/traffic-rules?limit=1&after={page.body['next']}")
    assert (rest.body["items"], rest.body["next"]) == ([first], None)


async def test_new_rules_are_in_force_at_the_next_look(service: Service, clock: Any) -> None:
    await service.plant()
    await service.go_live()
    await service.call("POST", "/v1/traffic-rules", {"declared_bots": False})
    await service.rules.step(clock())
    ticket = await ticket_of(service)
    assert (await report(service, ticket=ticket, kind="impression", user_agent=BOT))["outcome"] == "recorded"
    (row,) = (await service.call("GET", "/v1/impressions", key="analyst")).body["items"]
    assert row["traffic_rules"] == 2


async def test_rules_that_cannot_be_are_refused(service: Service) -> None:
    for wrong, field in (
        ({"clients_allowed": ["WhatsApp", "WhatsUp"]}, "$.clients_allowed[1]"),
        ({"click_after_ms": 0}, "$.click_after_ms"),
        ({"clicks_of_viewer": {"count": 5}}, "$.clicks_of_viewer.window_s"),
        ({"bots": True}, "$.bots"),
    ):
        reply = await service.call("POST", "/v1/traffic-rules", wrong)
        assert (reply.status, reply.fields) == (400, [field])
    for method in ("GET", "POST"):
        for key in ("feed", "analyst"):
            body = {} if method == "POST" else None
            assert (await service.call(method, "/v1/traffic-rules", body, key=key)).status == 403


async def test_the_report_tells_gross_invalid_and_net(service: Service, clock: Any) -> None:
    planted = [await service.plant() for _ in range(2)]
    await service.go_live()
    billed = 0
    for nth in range(12):
        ticket = await ticket_of(service, f"u-{nth}")
        told = await report(
            service, ticket=ticket, kind="impression", user_agent=BOT if nth % 3 else "okhttp/4.12.0"
        )
        billed += told["billed"]["micros"] if told["billed"] else 0
    rows = (await service.call("GET", "/v1/reports/traffic", key="analyst")).body["items"]
    for row in rows:
        assert row["gross"]["micros"] - row["invalid"]["micros"] == row["net"]["micros"]
    assert sum(row["net"]["micros"] for row in rows) == billed > 0
    assert (sum(row["events"] for row in rows), sum(row["invalid_events"] for row in rows)) == (12, 8)
    log = (await service.call("GET", "/v1/impressions", key="analyst")).body["items"]
    assert sum(row["gross"]["micros"] for row in rows) == sum(row["price"]["micros"] for row in log)
    mine = await service.issue("advertiser", advertiser=planted[0]["advertiser"])
    own = (await service.call("GET", "/v1/reports/traffic", key=mine)).body["items"]
    assert [row for row in rows if row["advertiser"] == planted[0]["advertiser"]] == own
    pages: list[Any] = []
    after = ""
    while True:
        page = (await service.call("GET", f"/v1/reports/traffic?limit=1{after}", key="analyst")).body
        pages += page["items"]
        if page["next"] is None:
            break
        after = f"&after={page['next']}"
    assert pages == rows
    none = await service.call("GET", "/v1/reports/traffic?to=2025-06-01T00:00:00Z", key="analyst")
    assert none.body["items"] == []
    long = await service.call("GET", "/v1/reports/traffic?from=2020-06-01T00:00:00Z", key="analyst")
    assert (long.status, long.fields) == (400, ["?from"])
