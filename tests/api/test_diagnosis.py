"""Each cause that keeps a campaign from being shown, made in a real database, is what its diagnosis says."""

from typing import Any
from uuid import UUID

import pytest
from service import SURFACES, Service, campaign_body

from adserve.access.keys import Scope
from adserve.domain.surfaces import Surface
from adserve.domain.time import DAY_MS, HOUR_MS, SECOND_MS, from_ms
from adserve.reporting.diagnosis import Code
from adserve.store.dossier import SQL
from adserve.store.funnel import FunnelStore

USD, EUR = "USD", "EUR"
EVENT_MICROS = 2_000
"""What an impression of a planted campaign costs at the most."""


async def diagnosis(service: Service, campaign: int, key: str = "operator") -> Any:
    reply = await service.call("GET", f"/v1/campaigns/{campaign}/diagnosis", key=key)
    assert reply.status == 200, reply
    return reply.body


async def findings(service: Service, campaign: int) -> list[tuple[str, str]]:
    told = await diagnosis(service, campaign)
    found = [(finding["code"], finding["effect"]) for finding in told["findings"]]
    assert told["can_be_shown"] == all(effect == "limits" for _, effect in found)
    return found


async def detail(service: Service, campaign: int) -> str:
    (finding,) = (await diagnosis(service, campaign))["findings"]
    text: str = finding["detail"]
    return text


async def ask(service: Service, viewer: str = "u", country: str = "ID") -> list[str]:
    body = {"viewer": viewer, "feed_length": 12, "max_ads": 1, "context": {"country": country}}
    reply = await service.call("POST", "/v1/slots", body, key="feed")
    return [placed["ticket"] for placed in reply.body["placements"]]


async def see(service: Service, ticket: str) -> None:
    body = {"events": [{"ticket": ticket, "kind": "impression"}]}
    assert (await service.call("POST", "/v1/events", body, key="feed")).status == 200


async def planted(service: Service, **campaign: Any) -> dict[str, int]:
    ids = await service.plant(**campaign)
    await service.go_live()
    return ids


async def deposit(service: Service, advertiser: int, micros: int, currency: str = USD) -> None:
    body = {"amount": {"micros": micros, "currency": currency}}
    await service.made(f"/v1/advertisers/{advertiser}/deposits", body)


def price(micros: int, currency: str = USD) -> dict[str, Any]:
    return {"micros": micros, "currency": currency}


async def plant_funnel(service: Service, ids: dict[str, int], *counts: int, impressions: int = 0) -> None:
    """Of the last full hour."""
    hour = from_ms(service.clock() // HOUR_MS * HOUR_MS - HOUR_MS)
    await service.pools.recorder.execute(
        "INSERT INTO funnel_hours VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        hour, ids["campaign"], ids["advertiser"], *counts,
    )  # fmt: skip  # the row in one line
    if impressions:
        await service.pools.owner.execute(
            "INSERT INTO rollup_deltas VALUES ($1, $2, $3, $4, 'USD', 'impression', 'recorded', $5, 0)",
            hour, ids["advertiser"], ids["campaign"], ids["ad"], impressions,
        )  # fmt: skip  # the row in one line


async def test_a_healthy_campaign_has_no_finding(service: Service, clock: Any) -> None:
    ids = await planted(service, targeting={"countries": ["ID"]}, budget={"daily": price(5_000_000)})
    (ticket,) = await ask(service)
    await see(service, ticket)
    await plant_funnel(service, ids, 1_000, 900, 900, 900, 900, 800, impressions=790)
    told = await diagnosis(service, ids["campaign"])
    assert (told["can_be_shown"], told["findings"]) == (True, [])
    assert told["campaign"] == ids["campaign"]
    assert told["funnel"] == {
        "from": "2025-12-31T00:00:00Z",
        "to": "2026-01-01T00:00:00Z",
        "eligible": 1_000,
        "targeted": 900,
        "ranked": 900,
        "in_budget": 900,
        "under_cap": 900,
        "placed": 800,
        "impressions": 790,
    }


async def test_nothing_was_ever_asked_for_or_rolled_out(service: Service) -> None:
    ids = await service.plant()
    told = await diagnosis(service, ids["campaign"])
    assert [finding["code"] for finding in told["findings"]] == ["not_rolled_out"]
    assert told["funnel"] is None


@pytest.mark.parametrize(
    ("thing", "code"),
    [
        ("advertiser", Code.ADVERTISER_NOT_ACTIVE),
        ("campaign", Code.CAMPAIGN_NOT_ACTIVE),
        ("ad", Code.ADS_NOT_ACTIVE),
        ("creative", Code.CREATIVES_NOT_ACTIVE),
    ],
)
async def test_what_is_paused_or_archived_blocks(service: Service, thing: str, code: Code) -> None:
    ids = await planted(service)
    path = f"/v1/{thing}s/{ids[thing]}"
    for verb, status in (("pause", "paused"), ("archive", "archived")):
        assert (await service.call("POST", f"{path}/{verb}")).status == 200
        assert await findings(service, ids["campaign"]) == [(code, "blocks")]
        told = await detail(service, ids["campaign"])
        assert status in told
        assert (str(ids[thing]) in told) == (thing in ("ad", "creative"))


async def test_one_paused_ad_of_two_limits_and_an_archived_one_is_forgotten(service: Service) -> None:
    ids = await planted(service)
    creative = await service.made("/v1/creatives", await service.creative_body(ids["advertiser"]))
    body = {"campaign": ids["campaign"], "creative": creative["id"]}
    second = (await service.made("/v1/ads", body))["id"]
    await service.call("POST", f"/v1/ads/{second}/pause")
    assert await findings(service, ids["campaign"]) == [(Code.ADS_NOT_ACTIVE, "limits")]
    assert await detail(service, ids["campaign"]) == f"Ad {second} is paused."
    await service.call("POST", f"/v1/creatives/{ids['creative']}/pause")
    both = [(Code.ADS_NOT_ACTIVE, "blocks"), (Code.CREATIVES_NOT_ACTIVE, "blocks")]
    assert await findings(service, ids["campaign"]) == both, "together they leave nothing"
    await service.call("POST", f"/v1/creatives/{ids['creative']}/resume")
    await service.call("POST", f"/v1/ads/{second}/archive")
    assert await findings(service, ids["campaign"]) == []


async def test_what_no_reviewer_has_approved_blocks(service: Service) -> None:
    ids = await planted(service)
    own = await service.issue(Scope.ADVERTISER, advertiser=ids["advertiser"])
    path = f"/v1/creatives/{ids['creative']}"
    etag = (await service.call("GET", path, key=own)).headers["ETag"]
    changed = await service.call("PATCH", path, {"headline": "Half the price."}, key=own, If_Match=etag)
    assert await findings(service, ids["campaign"]) == [(Code.CREATIVES_NOT_APPROVED, "blocks")]
    told = f"Creative {ids['creative']} is waiting for a review, and no ad is left."
    assert await detail(service, ids["campaign"]) == told
    verdict = {"revision": changed.body["revision"], "reason": "It is not."}
    await service.call("POST", f"/v1/reviews/{ids['creative']}/reject", verdict)
    assert "is rejected by a reviewer" in await detail(service, ids["campaign"])
    del verdict["reason"]
    await service.call("POST", f"/v1/reviews/{ids['creative']}/approve", verdict)
    assert await findings(service, ids["campaign"]) == []


async def test_its_time_blocks_before_and_after(service: Service, clock: Any) -> None:
    times = {"starts_at": "2026-01-01T01:00:00Z", "ends_at": "2026-01-01T02:00:00Z"}
    ids = await planted(service, **times)
    assert await findings(service, ids["campaign"]) == [(Code.NOT_STARTED, "blocks")]
    assert "2026-01-01T01:00:00" in await detail(service, ids["campaign"])
    clock.advance(HOUR_MS)
    assert await findings(service, ids["campaign"]) == []
    clock.advance(HOUR_MS)
    assert await findings(service, ids["campaign"]) == [(Code.ENDED, "blocks")]


async def test_a_campaign_without_ads(service: Service) -> None:
    ids = await planted(service)
    bare = (await service.made("/v1/campaigns", campaign_body(ids["advertiser"])))["id"]
    assert await findings(service, bare) == [(Code.NO_ADS, "blocks")]


async def test_a_currency_that_no_surface_takes(service: Service) -> None:
    ids = await planted(service, bid={"model": "cpm", "price": price(2_000_000, EUR)})
    await deposit(service, ids["advertiser"], 1_000_000, EUR)
    assert await findings(service, ids["campaign"]) == [(Code.CURRENCY_NOT_TAKEN, "blocks")]
    assert await detail(service, ids["campaign"]) == "It bids in EUR, and ads are sold in USD."


async def test_funds_are_prepaid_and_credit_together(service: Service) -> None:
    ids = await planted(service)
    poor = (await service.made("/v1/advertisers", {"name": "Poor"}))["id"]
    campaign = (await service.made("/v1/campaigns", campaign_body(poor)))["id"]
    creative = (await service.made("/v1/creatives", await service.creative_body(poor)))["id"]
    await service.made("/v1/ads", {"campaign": campaign, "creative": creative})
    assert await findings(service, campaign) == [(Code.NO_FUNDS, "blocks")]
    assert "0.00 USD" in await detail(service, campaign)
    assert "0.002 USD" in await detail(service, campaign)
    await deposit(service, poor, EVENT_MICROS - 1)
    assert await findings(service, campaign) == [(Code.NO_FUNDS, "blocks")]
    line = await service.call("PUT", f"/v1/advertisers/{poor}/credit-line", {"amount": price(1)})
    assert line.status == 200
    assert await findings(service, campaign) == []
    await service.step()
    assert await findings(service, campaign) == [(Code.NO_FUNDS, "limits")], (
        "all of it is held for the campaign"
    )
    assert await findings(service, ids["campaign"]) == []


@pytest.mark.parametrize(
    ("budget", "code"), [("daily", Code.DAILY_BUDGET_SPENT), ("total", Code.TOTAL_BUDGET_SPENT)]
)
async def test_a_budget_is_held_and_then_spent(service: Service, clock: Any, budget: str, code: Code) -> None:
    ids = await planted(service, budget={budget: price(EVENT_MICROS)}, pacing="asap", priority="guaranteed")
    assert await findings(service, ids["campaign"]) == [(code, "limits")]
    (ticket,) = await ask(service)
    await see(service, ticket)
    assert await findings(service, ids["campaign"]) == [(code, "blocks")]
    assert "0.002 USD are spent and 0.00 USD held" in await detail(service, ids["campaign"])
    clock.advance(DAY_MS)
    expected = [] if budget == "daily" else [(code, "blocks")]
    assert await findings(service, ids["campaign"]) == expected, "a new day has its own budget"


async def test_even_pacing_keeps_the_rest_for_later(service: Service) -> None:
    ids = await planted(service, budget={"daily": price(200_000)}, pacing="even")
    assert await findings(service, ids["campaign"]) == []
    asked = 0
    while await ask(service, f"u-{asked}"):
        asked += 1
    assert 0 < asked < 50
    assert await findings(service, ids["campaign"]) == [(Code.PACED_OUT, "limits")]


async def test_a_bid_below_the_floor(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = await planted(service, targeting={"countries": ["ID", "DE"]})
    monkeypatch.setitem(SURFACES, "status", Surface(floors_micros={"DE": 2_000_001}))
    assert await findings(service, ids["campaign"]) == [(Code.BELOW_FLOOR, "limits")]
    assert "2.000001 USD on status in DE" in await detail(service, ids["campaign"])
    monkeypatch.setitem(SURFACES, "status", Surface(floor_micros=2_000_001))
    assert await findings(service, ids["campaign"]) == [(Code.BELOW_FLOOR, "blocks")]
    monkeypatch.setitem(SURFACES, "status", Surface(floor_micros=2_000_000))
    assert await findings(service, ids["campaign"]) == []


async def test_what_a_click_is_worth_is_a_prediction_and_never_blocks(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = await planted(service, bid={"model": "cpc", "price": price(100_000)}, billable="click")
    monkeypatch.setitem(SURFACES, "status", Surface(floor_micros=900_000))
    assert await findings(service, ids["campaign"]) == []
    monkeypatch.setitem(SURFACES, "status", Surface(floor_micros=1_100_000))
    assert await findings(service, ids["campaign"]) == [(Code.BELOW_FLOOR, "limits")]


async def test_the_operators_pause_blocks(service: Service, clock: Any) -> None:
    ids = await planted(service)
    await service.call("POST", "/v1/rollout/pause")
    await service.refresh.switch(clock())
    assert await findings(service, ids["campaign"]) == [(Code.ADS_PAUSED, "blocks")]


async def test_of_the_rollout_it_is_told_whether_and_no_more(service: Service) -> None:
    ids = await planted(service, targeting={"countries": ["ID", "DE"]})
    for rollout, expected in (
        ({"percent": 0}, "blocks"),
        ({"percent": 0, "countries": {"US": 100}}, "blocks"),
        ({"percent": 0, "countries": {"ID": 7}}, "limits"),
        ({"percent": 0, "countries": {"ID": 100}}, "limits"),
        ({"percent": 0, "countries": {"ID": 100, "DE": 100}}, None),
    ):
        await service.call("PUT", "/v1/rollout", {"surfaces": {"status": rollout}})
        await service.step()
        assert await findings(service, ids["campaign"]) == (
            [] if expected is None else [(Code.NOT_ROLLED_OUT, expected)]
        )
        if expected is not None:
            assert not any(character.isdigit() for character in await detail(service, ids["campaign"]))


async def test_nobody_asked_although_it_was_there(service: Service) -> None:
    ids = await planted(service)
    assert await findings(service, ids["campaign"]) == []
    await service.pools.operator.execute("UPDATE campaigns SET created_at = '2025-06-01'")
    assert await findings(service, ids["campaign"]) == [], "what was not counted is no zero"
    began, store = service.clock() - 25 * HOUR_MS, FunnelStore(service.pools.recorder, UUID(int=9))
    await store.save(began, began + 12 * HOUR_MS, [], [], ended=False)
    await store.save(began + 13 * HOUR_MS, service.clock(), [], [], ended=False)
    assert await findings(service, ids["campaign"]) == [], "an hour was lost"
    await store.save(began, service.clock(), [], [], ended=False)
    assert await findings(service, ids["campaign"]) == [(Code.NO_REQUESTS, "limits")]


LOST: list[tuple[Code, tuple[int, ...], int]] = [
    (Code.NOBODY_MATCHED, (100, 0, 0, 0, 0, 0), 0),
    (Code.LOST_TO_TARGETING, (1_000, 50, 50, 50, 50, 50), 50),
    (Code.LOST_TO_BETTER_ADS, (1_000, 900, 40, 40, 40, 40), 40),
    (Code.LOST_TO_BUDGET, (1_000, 900, 880, 40, 40, 40), 40),
    (Code.LOST_TO_CAPS, (1_000, 900, 880, 870, 40, 40), 40),
    (Code.LOST_TO_PLACES, (1_000, 900, 880, 870, 860, 40), 40),
    (Code.NOT_SHOWN, (1_000, 900, 880, 870, 860, 850), 99),
]


@pytest.mark.parametrize(("code", "counts", "impressions"), LOST)
async def test_the_funnel_tells_where_most_is_lost(
    service: Service, code: Code, counts: tuple[int, ...], impressions: int
) -> None:
    ids = await planted(service)
    await plant_funnel(service, ids, *counts, impressions=impressions)
    assert await findings(service, ids["campaign"]) == [(code, "limits")]
    assert f"{counts[0]:,}" in await detail(service, ids["campaign"]) or code not in (
        Code.NOBODY_MATCHED,
        Code.LOST_TO_TARGETING,
    )


async def test_a_few_requests_tell_nothing_and_enough_impressions_are_well(service: Service) -> None:
    ids = await planted(service)
    await plant_funnel(service, ids, 99, 0, 0, 0, 0, 0)
    assert await findings(service, ids["campaign"]) == []
    other = await planted(service)
    await plant_funnel(service, other, 1_000, 900, 880, 870, 860, 850, impressions=100)
    assert await findings(service, other["campaign"]) == []


async def test_caps_that_real_requests_met(service: Service, clock: Any) -> None:
    ids = await planted(service, caps=[{"scope": "campaign", "count": 1, "window_s": 86_400}])
    for _ in range(120):
        for ticket in await ask(service):
            await see(service, ticket)
    clock.advance(SECOND_MS)
    await service.funnel.step(clock())
    clock.advance(HOUR_MS)
    await FunnelStore(service.pools.recorder, UUID(int=9)).merge(clock())
    assert await findings(service, ids["campaign"]) == [(Code.LOST_TO_CAPS, "limits")]
    assert "120 times there was budget, and 1 times" in await detail(service, ids["campaign"])


async def test_it_is_for_its_owner_and_the_operator_alone(service: Service) -> None:
    mine, theirs = await planted(service), await planted(service)
    key = await service.issue("advertiser", "analyst", advertiser=mine["advertiser"])
    analyst_of_mine = await service.issue("analyst", advertiser=mine["advertiser"])
    for part in ("diagnosis", "estimate"):
        own, other = (f"/v1/campaigns/{ids['campaign']}/{part}" for ids in (mine, theirs))
        assert (await service.call("GET", own, key=key)).status == 200
        assert (await service.call("GET", other, key=key)).status == 404
        assert (await service.call("GET", f"/v1/campaigns/999/{part}", key=key)).status == 404
        assert (await service.call("GET", own, key="operator")).status == 200
        for refused in ("analyst", "feed", "reviewer", analyst_of_mine):
            assert (await service.call("GET", own, key=refused)).status == 403
        assert (await service.call("GET", own, key=None)).status == 401
        assert (await service.call("GET", f"{own}?a=b", key=key)).fields == ["?a"]
        for garbage in ("0", "-1", "x", "9" * 17, "1e3", "%00"):
            assert (await service.call("GET", f"/v1/campaigns/{garbage}/{part}", key=key)).status == 404


async def test_a_tenant_is_told_what_the_operator_is(service: Service) -> None:
    ids = await planted(service, budget={"total": price(EVENT_MICROS)}, pacing="asap")
    key = await service.issue("advertiser", advertiser=ids["advertiser"])
    assert await diagnosis(service, ids["campaign"], key) == await diagnosis(service, ids["campaign"])


async def test_what_it_reads_is_found_by_indexes(service: Service) -> None:
    ids = await planted(service)
    async with service.pools.operator.acquire() as connection, connection.transaction():
        await connection.execute("SET LOCAL enable_seqscan = off")
        for statement, values in (
            (SQL.campaign, (ids["campaign"],)),
            (SQL.ads, (ids["campaign"], 10)),
            (SQL.uses, (ids["campaign"], from_ms(service.clock()).date())),
            (SQL.held, (ids["advertiser"], ids["campaign"], from_ms(service.clock()).date())),
        ):
            plan = "\n".join(row[0] for row in await connection.fetch(f"EXPLAIN {statement}", *values))
            assert "Seq Scan" not in plan, plan
