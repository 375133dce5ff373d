import json
from typing import Any
from unittest.mock import Mock

import pytest
from service import Service, slots_api
from wrapping import SlotsTwin

from adserve.access.keys import Key, Scope
from adserve.domain.ids import KeyId

FEED = {"feed": [{"id": f"s{n}", "author": f"a{n}"} for n in range(12)]}
ASK = {"viewer": "u-1", "context": {"country": "ID"}} | FEED


async def ask(service: Service, **more: Any) -> dict[str, Any]:
    reply = await service.call("POST", "/v1/slots", ASK | more, key="feed")
    assert reply.status == 200, reply
    answer: dict[str, Any] = reply.body
    return answer


async def test_an_ad_is_placed_as_the_contract_says(service: Service) -> None:
    ids = await service.plant()
    await service.go_live()
    answer = await ask(service)
    assert answer["no_fill"] is None
    placement = answer["placements"][0]
    token = placement["ticket"]
    assert placement["position"] == 3
    assert placement["expires_at"] == "2026-01-01T01:00:00.000Z"
    assert placement["ad"]["id"] == ids["ad"]
    assert placement["ad"]["campaign"] == ids["campaign"]
    assert placement["ad"]["advertiser"] == {"id": ids["advertiser"], "name": "Kopi Rana"}
    creative = placement["ad"]["creative"]
    assert (creative["id"], creative["kind"], creative["width"]) == (ids["creative"], "image", 1080)
    assert creative["media_url"].startswith("http://ads.test/media/")
    assert placement["urls"] == {
        "impression": f"http://ads.test/i.gif?e={token}",
        "click": f"http://ads.test/r?e={token}",
        "hide": f"http://ads.test/e.gif?e={token}.hide",
        "report": f"http://ads.test/e.gif?e={token}.report",
    }


async def test_no_ads_is_not_an_error(service: Service) -> None:
    await service.go_live(percent=0)
    answer = await ask(service)
    assert answer["placements"] == []
    assert answer["no_fill"] == "not_in_rollout"
    assert (await ask(service, consent={"ads": False}))["no_fill"] in ("not_in_rollout", "opted_out")


async def test_unknown_context_is_ignored_and_unknown_fields_elsewhere_are_not(service: Service) -> None:
    await service.go_live()
    await ask(service, context={"country": "ID", "of_a_newer_app": {"deep": [1]}})
    reply = await service.call("POST", "/v1/slots", ASK | {"viewre": "u"}, key="feed")
    assert (reply.status, reply.fields) == (400, ["$.viewre"])


async def test_a_repeated_request_gets_the_same_answer_and_another_body_is_refused(service: Service) -> None:
    await service.plant()
    await service.go_live()
    first = await ask(service, request="r-1")
    assert first["placements"]
    assert await ask(service, request="r-1") == first
    reply = await service.call("POST", "/v1/slots", ASK | {"request": "r-1", "max_ads": 1}, key="feed")
    assert (reply.status, reply.fields) == (409, ["$.request"])


async def test_ads_without_an_explanation_are_for_the_feed_service(service: Service) -> None:
    await service.go_live()
    for scope in ("analyst", "operator"):
        reply = await service.call("POST", "/v1/slots", ASK, key=scope)
        assert reply.status == 403, reply


async def test_explaining_needs_more_than_a_feed_key(service: Service) -> None:
    await service.plant()
    await service.go_live()
    body = ASK | {"explain": True}
    assert (await service.call("POST", "/v1/slots", body, key="feed")).status == 403
    explained = await service.call("POST", "/v1/slots", body, key="analyst")
    assert explained.status == 200
    assert explained.body["explanation"]
    advertiser = (await service.made("/v1/advertisers", {"name": "a"}))["id"]
    theirs = await service.issue("analyst", advertiser=advertiser)
    assert (await service.call("POST", "/v1/slots", body, key=theirs)).status == 403


BAD: list[tuple[dict[str, Any], str]] = [
    ({"viewer": ""}, "$.viewer"),
    ({"viewer": 7}, "$.viewer"),
    ({"viewer": "u\0"}, "$.viewer"),
    ({"surface": "stories"}, "$.surface"),
    ({"surface": ""}, "$.surface"),
    ({"feed_length": 3}, "$.feed"),
    ({"feed": [{"id": 1}]}, "$.feed[0].id"),
    ({"feed": [{"id": "s", "author": "a"}] * 501}, "$.feed"),
    ({"floor": {"micros": 1, "currency": "EUR"}}, "$.floor.currency"),
    ({"floor": {"micros": -1, "currency": "USD"}}, "$.floor.micros"),
    ({"ticket_ttl_s": 59}, "$.ticket_ttl_s"),
    ({"ticket_ttl_s": 86_401}, "$.ticket_ttl_s"),
    ({"max_ads": 1 << 70}, "$.max_ads"),
    ({"deadline_ms": 0}, "$.deadline_ms"),
    ({"context": {"country": "id"}}, "$.context.country"),
    ({"context": {"country": "ID\n"}}, "$.context.country"),
    ({"context": {"age": "27"}}, "$.context.age"),
    ({"context": {"custom": {"team": 1}}}, "$.context.custom[...]"),
    ({"consent": {"personalized": True}}, "$.consent.personalized"),
]


async def test_bad_input_is_named(service: Service) -> None:
    for change, field in BAD:
        reply = await service.call("POST", "/v1/slots", ASK | change, key="feed")
        assert (reply.status, reply.fields) == (400, [field]), change


@pytest.mark.parametrize(
    ("told", "waited_ms", "left_ms"),
    [({}, 0, 30), ({}, 12, 18), ({"deadline_ms": 20}, 12, 8), ({"deadline_ms": 60_000}, 12, 988)],
)
async def test_a_deadline_counts_from_when_the_request_began_to_arrive(
    told: dict[str, Any], waited_ms: int, left_ms: int
) -> None:
    """30 ms where none is told, and a second at the most."""
    slots, pseudonyms, auth = SlotsTwin(), Mock(), Mock()
    slots.positions = ()
    pseudonyms.of.return_value = (b"c" * 16, b"l" * 16)
    auth.authorise.return_value = Key(KeyId(1), "the feed's", frozenset({Scope.FEED}), None)
    api = slots_api(slots, Mock(), pseudonyms, Mock())
    assert await api.answer_plainly(slots, auth, "secret", json.dumps(ASK | told).encode(), waited_ms)
    assert [ask.deadline_ms for ask in slots.asked] == [left_ms]


async def test_a_feed_or_its_length_is_needed(service: Service) -> None:
    reply = await service.call("POST", "/v1/slots", {"viewer": "u"}, key="feed")
    assert (reply.status, reply.fields) == (400, ["$.feed"])
    await service.go_live()
    assert (
        await service.call("POST", "/v1/slots", {"viewer": "u", "feed_length": 30}, key="feed")
    ).status == 200


async def test_released_tickets_give_their_room_back(service: Service) -> None:
    await service.plant(caps=[{"scope": "ad", "count": 1, "window_s": 3_600}])
    await service.go_live()
    token = (await ask(service))["placements"][0]["ticket"]
    assert (await ask(service))["no_fill"] == "frequency_capped"
    reply = await service.call("POST", "/v1/tickets/release", {"tickets": [token, token]}, key="feed")
    assert (reply.status, reply.body) == (200, {"released": 1})
    assert (await ask(service))["placements"]
    forged = await service.call("POST", "/v1/tickets/release", {"tickets": [token, "x"]}, key="feed")
    assert (forged.status, forged.fields) == (400, ["$.tickets[1]"])
