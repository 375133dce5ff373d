"""One tenant through HTTP beside another: what the row policies let through."""

from typing import Any

import pytest
from service import Service, campaign_body
from world import superuser

THINGS = ("advertisers", "campaigns", "creatives", "ads")


async def two_tenants(service: Service) -> tuple[dict[str, int], dict[str, int], str]:
    """The ids of a tenant and of another, and the first one's key."""
    mine, theirs = await service.plant(), await service.plant()
    key = await service.issue("advertiser", "analyst", advertiser=mine["advertiser"])
    return mine, theirs, key


async def test_a_tenant_reads_and_changes_its_own_alone(service: Service) -> None:
    mine, theirs, key = await two_tenants(service)
    for things in THINGS:
        one = things.removesuffix("s")
        own, other = f"/v1/{things}/{mine[one]}", f"/v1/{things}/{theirs[one]}"
        listed = (await service.call("GET", f"/v1/{things}", key=key)).body["items"]
        assert [item["id"] for item in listed] == [mine[one]]
        assert (await service.call("GET", own, key=key)).status == 200
        assert (await service.call("GET", other, key=key)).status == 404
        changes: dict[str, Any] = {"creative": mine["creative"]} if one == "ad" else {}
        assert (await service.call("PATCH", own, changes, key=key, If_Match="*")).status == 200
        assert (await service.call("PATCH", other, changes, key=key, If_Match="*")).status == 404
        if one != "advertiser":
            assert (await service.call("POST", f"{own}/pause", key=key)).status == 200
            assert (await service.call("POST", f"{other}/pause", key=key)).status == 404
            assert (await service.call("GET", other)).body["status"] == "active"
    assert (
        await service.call("GET", f"/v1/advertisers/{theirs['advertiser']}/balance", key=key)
    ).status == 404


async def test_a_tenant_creates_nothing_for_or_from_another(service: Service) -> None:
    mine, theirs, key = await two_tenants(service)
    creative = await service.creative_body(theirs["advertiser"])
    for path, body, field in (
        ("/v1/campaigns", campaign_body(theirs["advertiser"]), "$.advertiser"),
        ("/v1/creatives", creative, "$.advertiser"),
        ("/v1/ads", {"campaign": theirs["campaign"], "creative": theirs["creative"]}, "$.campaign"),
        ("/v1/ads", {"campaign": mine["campaign"], "creative": theirs["creative"]}, "$.creative"),
    ):
        reply = await service.call("POST", path, body, key=key)
        assert (reply.status, reply.fields) == (400, [field])
        unknown = campaign_body(999) if path == "/v1/campaigns" else None
        if unknown is not None:  # what exists and is another's looks like what does not exist
            nothing = await service.call("POST", path, unknown, key=key)
            assert (nothing.status, nothing.body) == (reply.status, reply.body)
    assert (await service.call("POST", "/v1/advertisers", {"name": "a"}, key=key)).status == 403


async def test_a_tenant_sees_its_own_impressions_alone(service: Service) -> None:
    mine, theirs, key = await two_tenants(service)
    await service.go_live()
    ask = {"viewer": "u", "feed_length": 30, "max_ads": 2}
    placements = (await service.call("POST", "/v1/slots", ask, key="feed")).body["placements"]
    events = [{"ticket": placement["ticket"], "kind": "impression"} for placement in placements]
    await service.call("POST", "/v1/events", {"events": events}, key="feed")

    async def seen(key: str, query: str = "") -> list[int]:
        items = (await service.call("GET", f"/v1/impressions{query}", key=key)).body["items"]
        return sorted(item["advertiser"] for item in items)

    assert await seen("analyst") == [mine["advertiser"], theirs["advertiser"]]
    assert await seen(key) == [mine["advertiser"]]
    assert await seen(key, f"?advertiser={theirs['advertiser']}") == []


@pytest.mark.parametrize(("things", "policy"), [("campaigns", "own"), ("creatives", "own"), ("ads", "own")])
async def test_control_without_its_policy_a_table_leaks(
    service: Service, database_url: str, things: str, policy: str
) -> None:
    _, theirs, key = await two_tenants(service)
    connection = await superuser(database_url)
    try:
        await connection.execute(f"ALTER POLICY {policy} ON {things} USING (true)")
    finally:
        await connection.close()
    path = f"/v1/{things}/{theirs[things.removesuffix('s')]}"
    assert (await service.call("GET", path, key=key)).status == 200
