import logging
from typing import Any

import pytest
from service import Service

from adserve.domain.time import SECOND_MS

WANTED = {"name": "Feed", "scopes": ["feed", "analyst", "feed"]}
KNOWN = {"id", "name", "scopes", "advertiser", "hint", "created_at", "revoked_at"}


async def listed(service: Service, query: str = "") -> Any:
    reply = await service.call("GET", f"/v1/keys{query}")
    assert reply.status == 200, reply
    return reply.body


async def may_list_rules(service: Service, secret: str) -> int:
    return (await service.call("GET", "/v1/traffic-rules", key=secret)).status


async def test_a_key_is_issued_used_listed_and_revoked(service: Service, clock: Any) -> None:
    issued = await service.made("/v1/keys", {"name": "Mira", "scopes": ["operator"]})
    secret = issued.pop("secret")
    assert issued.keys() == KNOWN
    assert (issued["scopes"], issued["advertiser"], issued["revoked_at"]) == (["operator"], None, None)
    assert secret.startswith(issued["hint"])
    await service.auth.refresh()
    assert await may_list_rules(service, secret) == 200
    assert issued in (await listed(service))["items"]

    clock.advance(SECOND_MS)
    revoked = await service.call("POST", f"/v1/keys/{issued['id']}/revoke")
    assert (revoked.status, revoked.body | {"revoked_at": None}) == (200, issued)
    assert revoked.body["revoked_at"] == "2026-01-01T00:00:01Z"
    await service.auth.refresh()
    assert await may_list_rules(service, secret) == 401
    assert revoked.body in (await listed(service))["items"]

    clock.advance(SECOND_MS)
    again = await service.call("POST", f"/v1/keys/{issued['id']}/revoke")
    assert (again.status, again.body) == (200, revoked.body)
    assert (await service.call("POST", "/v1/keys/999/revoke")).status == 404


async def test_no_cache_keeps_what_is_answered(service: Service) -> None:
    mine = (await service.plant())["advertiser"]
    asked = [
        await service.call("POST", "/v1/keys", WANTED),
        await service.call("GET", "/v1/keys"),
        await service.call("GET", f"/v1/advertisers/{mine}"),
        await service.call("GET", f"/v1/advertisers/{mine}/balance"),
        await service.call("GET", "/v1/advertisers/999"),
        await service.call("GET", "/v1/keys", key=None),
    ]
    assert [reply.status for reply in asked] == [201, 200, 200, 200, 404, 401]
    assert {reply.headers.get("Cache-Control") for reply in asked} == {"no-store"}


async def test_a_key_of_an_advertiser_speaks_for_it_alone(service: Service) -> None:
    mine, _ = [(await service.plant())["advertiser"] for _ in range(2)]
    wanted = {"name": "kopi", "scopes": ["advertiser", "analyst"], "advertiser": mine}
    issued = await service.made("/v1/keys", wanted)
    await service.auth.refresh()
    seen = (await service.call("GET", "/v1/advertisers", key=issued["secret"])).body["items"]
    assert [advertiser["id"] for advertiser in seen] == [mine]


async def test_keys_are_listed_in_pages(service: Service) -> None:
    whole, found, query = await listed(service), [], "?limit=3"
    assert [key["id"] for key in whole["items"]] == [1, 2, 3, 4]
    while query:
        page = await listed(service, query)
        found += page["items"]
        query = page["next"] and f"?limit=3&after={page['next']}"
    assert found == whole["items"]


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"name": ""}, "$.name"),
        ({"name": "a\tb"}, "$.name"),
        ({"scopes": []}, "$.scopes"),
        ({"scopes": ["feed", "root"]}, "$.scopes[1]"),
        ({"scopes": ["advertiser"]}, "$.advertiser"),
        ({"scopes": ["advertiser", "operator"], "advertiser": 1}, "$.scopes"),
        ({"scopes": ["advertiser"], "advertiser": 999}, "$.advertiser"),
        ({"secret": "ads_mine"}, "$.secret"),
    ],
)
async def test_what_no_key_may_be_is_refused_by_field(
    wrong: dict[str, Any], field: str, service: Service
) -> None:
    reply = await service.call("POST", "/v1/keys", WANTED | wrong)
    assert (reply.status, reply.fields) == (400, [field])
    assert len((await listed(service))["items"]) == len(service.keys)


async def test_keys_are_for_operators_alone(service: Service) -> None:
    tenant = await service.issue("advertiser", "analyst", advertiser=(await service.plant())["advertiser"])
    for key in ("feed", "analyst", "reviewer", tenant):
        for method, path, body in (
            ("POST", "/v1/keys", WANTED),
            ("GET", "/v1/keys", None),
            ("POST", "/v1/keys/1/revoke", None),
        ):
            assert (await service.call(method, path, body, key=key)).status == 403


async def stored(service: Service) -> str:
    """All that a secret could have been written into."""
    rows = [
        await service.pools.operator.fetch(f"SELECT t::text, t.* FROM {table} t")
        for table in ("api_keys", "idempotent_answers")
    ]
    return str(rows)


async def test_the_secret_is_told_once_and_kept_nowhere(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    first = await service.made("/v1/keys", WANTED, Idempotency_Key="k")
    again = await service.made("/v1/keys", WANTED, Idempotency_Key="k")
    assert again == first | {"secret": None}
    other = await service.call("POST", "/v1/keys", WANTED | {"name": "b"}, Idempotency_Key="k")
    assert (other.status, other.fields) == (409, ["Idempotency-Key"])
    assert len((await listed(service))["items"]) == len(service.keys) + 1
    kept = await stored(service)
    assert first["hint"] in kept
    assert first["secret"] not in kept + caplog.text
    assert first["secret"].encode() not in (await service.call("GET", "/v1/keys")).raw


async def test_without_what_is_kept_of_it_an_answer_would_be_stored_with_its_secret(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control of the test above."""
    monkeypatch.setattr("adserve.api.keys._without_secret", lambda answer: answer)
    issued = await service.made("/v1/keys", WANTED, Idempotency_Key="k")
    assert issued["secret"] in await stored(service)
