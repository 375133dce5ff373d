from typing import Any

from service import Service, campaign_body

USD = "USD"
FULL = {
    "objective": "traffic",
    "ends_at": "2027-01-01T00:00:00Z",
    "time_zone": "Asia/Jakarta",
    "budget": {
        "daily": {"micros": 9_000_000, "currency": USD},
        "total": {"micros": 90_000_000, "currency": USD},
    },
    "pacing": "asap",
    "priority": "guaranteed",
    "targeting": {
        "countries": ["ID", "MY"],
        "languages": ["id"],
        "platforms": ["android"],
        "app_version": {"min": "2.26.1", "max": "3"},
        "age": {"min": 18, "max": 44},
        "interests": ["music"],
        "weekdays": [1, 7],
        "hours": [0, 23],
        "custom": {"team": ["red", "blue"]},
        "exclude": {"countries": ["SG"], "age": {"max": 20}},
    },
    "caps": [{"scope": "advertiser", "count": 2, "window_s": 86_400}],
    "separation": ["drinks"],
}


async def advertiser(service: Service) -> int:
    made: int = (await service.made("/v1/advertisers", {"name": "Kopi Rana"}))["id"]
    return made


def price(micros: int, currency: str = USD) -> dict[str, Any]:
    return {"micros": micros, "currency": currency}


async def test_a_campaign_comes_back_as_it_was_given(service: Service) -> None:
    body = campaign_body(await advertiser(service), **FULL)
    created = await service.made("/v1/campaigns", body)
    assert {name: created[name] for name in body} == body
    assert created["status"] == "active"
    assert (await service.call("GET", f"/v1/campaigns/{created['id']}")).body == created
    listed = (await service.call("GET", f"/v1/campaigns?advertiser={body['advertiser']}")).body["items"]
    assert listed == [created]
    assert (await service.call("GET", "/v1/campaigns?advertiser=999")).body["items"] == []


async def test_a_change_leaves_the_rest_as_it_was(service: Service) -> None:
    created = await service.made("/v1/campaigns", campaign_body(await advertiser(service), **FULL))
    path = f"/v1/campaigns/{created['id']}"
    changes = {"ends_at": None, "targeting": {"exclude": {"hours": [3]}}, "caps": []}
    changed = await service.call("PATCH", path, changes, If_Match='"1"')
    assert changed.status == 200
    unchanged = created.keys() - changes.keys() - {"updated_at"}
    assert {name: changed.body[name] for name in unchanged} == {name: created[name] for name in unchanged}
    assert {name: changed.body[name] for name in changes} == changes
    for refused in ("status", "advertiser", "id"):
        reply = await service.call("PATCH", path, {refused: created[refused]}, If_Match="*")
        assert (reply.status, reply.fields) == (400, [f"$.{refused}"])


BAD: list[tuple[Any, str]] = [
    ({"bid": {"model": "cpm", "price": price(1_500)}}, "$.bid.price.micros"),
    ({"bid": {"model": "cpm", "price": price(0)}}, "$.bid.price.micros"),
    ({"bid": {"model": "cpv", "price": price(1_000)}}, "$.bid.model"),
    ({"billable": "click"}, "$.billable"),
    ({"bid": {"model": "cpc", "price": price(1)}}, "$.billable"),
    ({"bid": {"model": "cpc", "price": price(1)}, "billable": "complete"}, "$.billable"),
    ({"budget": {"daily": price(1_000, "EUR")}}, "$.budget.daily.currency"),
    ({"budget": {"total": price(0)}}, "$.budget.total.micros"),
    ({"budget": {"weekly": price(1)}}, "$.budget.weekly"),
    ({"ends_at": "2025-01-01T00:00:00Z"}, "$.ends_at"),
    ({"ends_at": "2025-06-01"}, "$.ends_at"),
    ({"starts_at": "0001-01-01T00:00:00Z"}, "$.starts_at"),
    ({"starts_at": "2026-01-01T00:00:00"}, "$.starts_at"),
    ({"time_zone": "Mars/Olympus"}, "$.time_zone"),
    ({"time_zone": "../etc/passwd"}, "$.time_zone"),
    ({"pacing": "fast"}, "$.pacing"),
    ({"priority": 1}, "$.priority"),
    ({"targeting": {"countries": ["id"]}}, "$.targeting.countries[0]"),
    ({"targeting": {"country": ["ID"]}}, "$.targeting.country"),
    ({"targeting": {"age": {"min": 40, "max": 30}}}, "$.targeting.age"),
    ({"targeting": {"exclude": {"age": {"min": 40, "max": 30}}}}, "$.targeting.exclude.age"),
    ({"targeting": {"app_version": {"min": "2.10", "max": "2.9"}}}, "$.targeting.app_version"),
    ({"targeting": {"hours": [24]}}, "$.targeting.hours[0]"),
    ({"targeting": {"weekdays": [0]}}, "$.targeting.weekdays[0]"),
    ({"targeting": {"custom": {"a": "b"}}}, "$.targeting.custom[...]"),
    ({"targeting": {"interests": ["a\0b"]}}, "$.targeting.interests[0]"),
    ({"caps": [{"scope": "ad", "count": 0, "window_s": 60}]}, "$.caps[0].count"),
    ({"caps": [{"scope": "ad", "count": 1, "window_s": 59}]}, "$.caps[0].window_s"),
    ({"caps": [{"scope": "ad", "count": 1, "window_s": 15_552_001}]}, "$.caps[0].window_s"),
    ({"caps": [{"scope": "user", "count": 1, "window_s": 60}]}, "$.caps[0].scope"),
    ({"separation": ["a,b"]}, "$.separation[0]"),
    ({"name": ""}, "$.name"),
    ({"name": "a\0b"}, "$.name"),
    ({"advertiser": 999}, "$.advertiser"),
    ({"advertiser": 0}, "$.advertiser"),
    ({"status": "archived"}, "$.status"),
]


async def test_a_bad_campaign_is_refused_by_field(service: Service) -> None:
    owner = await advertiser(service)
    good = await service.made("/v1/campaigns", campaign_body(owner))
    path = f"/v1/campaigns/{good['id']}"
    for change, field in BAD:
        replies = [await service.call("POST", "/v1/campaigns", campaign_body(owner) | change)]
        if not change.keys() & {"advertiser", "status"}:
            replies.append(await service.call("PATCH", path, change, If_Match="*"))
        assert {(reply.status, *reply.fields) for reply in replies} == {(400, field)}, change


async def test_what_is_billed_cannot_change_after_the_first_delivery(service: Service) -> None:
    ids = await service.plant()
    path = f"/v1/campaigns/{ids['campaign']}"
    fixed: list[tuple[dict[str, Any], str]] = [
        ({"time_zone": "Asia/Jakarta"}, "$.time_zone"),
        ({"bid": {"model": "cpm", "price": price(2_000_000, "EUR")}}, "$.bid.price.currency"),
        ({"billable": "view"}, "$.billable"),
        ({"bid": {"model": "cpc", "price": price(900)}, "billable": "click"}, "$.bid.model"),
    ]
    before = await service.call("PATCH", path, {"billable": "view"}, If_Match="*")
    assert before.status == 200
    await service.call("PATCH", path, {"billable": "impression"}, If_Match="*")
    await service.go_live()
    for change, field in fixed:
        reply = await service.call("PATCH", path, change, If_Match="*")
        assert reply.status == 409
        assert field in reply.fields
    more = {"bid": {"model": "cpm", "price": price(3_000_000)}, "name": "dearer"}
    assert (await service.call("PATCH", path, more, If_Match="*")).status == 200


async def test_an_operator_says_whose_it_is(service: Service) -> None:
    reply = await service.call("POST", "/v1/campaigns", campaign_body(None))
    assert (reply.status, reply.fields) == (400, ["$.advertiser"])
    id_ = await advertiser(service)
    key = await service.issue("advertiser", advertiser=id_)
    assert (await service.made("/v1/campaigns", campaign_body(None), key=key))["advertiser"] == id_
