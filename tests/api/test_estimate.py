"""What a campaign's estimate says of a day, against what the campaign then gets of the same traffic."""

import asyncio
from functools import partial
from random import Random
from typing import Any

import pytest
from service import Service

from adserve.domain.time import DAY_MS, HOUR_MS, day_of, from_ms
from adserve.limits.keeper import ROUND_MS
from adserve.selection.hindsight import Hindsight
from adserve.selection.recording import decode
from adserve.store import sampled
from adserve.store.decisions import SQL

REQUESTS = 300
"""Of a day: one in less than five minutes, or the snapshot would be too old."""
RATE = 0.7
USD = "USD"
LANGUAGES = ("id", "en", "de", "fr", "es")

Ask = dict[str, Any]


def price(micros: int) -> dict[str, Any]:
    return {"micros": micros, "currency": USD}


def bid(micros: int) -> dict[str, Any]:
    return {"model": "cpm", "price": price(micros)}


def asks_of_a_day(seed: int) -> list[Ask]:
    chance = Random(seed)
    return [
        {
            "viewer": f"v-{chance.randrange(10**9)}",
            "feed_length": chance.choice((2, 8, 12, 16)),
            "max_ads": 2,
            "context": {
                "language": chance.choice(LANGUAGES),
                "country": chance.choice(("ID", "ID", "DE")),
                "platform": chance.choice(("android", "ios")),
            },
        }
        for _ in range(REQUESTS)
    ]


async def day(service: Service, clock: Any, asks: list[Ask], campaign: int) -> int:
    """Lets a day pass; answers how often the campaign was placed."""
    placed = 0
    for nth, ask in enumerate(asks):
        await (service.step() if nth % 10 == 0 else service.refresh.step(clock()))
        reply = await service.call("POST", "/v1/slots", ask, key="feed")
        assert reply.status == 200
        placed += [each["ad"]["campaign"] for each in reply.body["placements"]].count(campaign)
        await service.call(
            "POST",
            "/v1/tickets/release",
            {"tickets": [e["ticket"] for e in reply.body["placements"]]},
            key="feed",
        )
        clock.advance(DAY_MS // len(asks))
    await service.recording.step(clock())
    await service.step()
    return placed


@pytest.fixture(autouse=True)
def _same_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or one of twenty samples would be off by more than its interval."""
    monkeypatch.setattr("service.draw_128_bits", partial(Random(1).getrandbits, 128))


async def market(service: Service, rate: float = RATE) -> None:
    """Two rivals for the viewers of each language: whom a campaign has to beat hangs on that."""
    service.recording._rate = rate
    for nth, language in enumerate(LANGUAGES):
        for micros in (3_000_000, 4_000_000):
            targeting = {"languages": [language]}
            await service.plant(bid=bid(micros + nth * 100_000), targeting=targeting)
    await service.go_live()


async def hopeful(service: Service, **campaign: Any) -> int:
    ids = await service.plant(**{"bid": bid(3_250_000)} | campaign)
    assert (await service.call("POST", f"/v1/campaigns/{ids['campaign']}/pause")).status == 200
    return ids["campaign"]


async def estimate(service: Service, campaign: int, key: str = "operator") -> Any:
    reply = await service.call("GET", f"/v1/campaigns/{campaign}/estimate", key=key)
    assert reply.status == 200, reply
    return reply.body


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seed", "campaign"),
    [
        (1, {}),
        (2, {"targeting": {"countries": ["DE"]}, "bid": bid(4_150_000)}),
        (3, {"targeting": {"platforms": ["ios"], "hours": [9, 10, 11]}}),
    ],
)
async def test_a_paused_campaign_then_gets_what_was_estimated(
    service: Service, clock: Any, seed: int, campaign: Any
) -> None:
    await market(service)
    mine, asks = await hopeful(service, **campaign), asks_of_a_day(seed)
    assert await day(service, clock, asks, mine) == 0
    told = await estimate(service, mine)
    assert (told["reason"], told["limited_by"], told["upper_bound"]) == (None, "requests", False)
    assert told["window"] == {"from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z"}
    assert 100 <= told["decisions"] <= REQUESTS

    looking = [ask for ask in asks if ask["feed_length"] > 3]
    wanted = [ask for ask in looking if wants(campaign, ask)]
    if "hours" not in campaign.get("targeting", {}):
        assert told["matching_a_day"]["low"] <= len(wanted) <= told["matching_a_day"]["high"]
    assert told["requests_a_day"]["low"] <= len(looking) <= told["requests_a_day"]["high"]

    assert (await service.call("POST", f"/v1/campaigns/{mine}/resume")).status == 200
    placed = await day(service, clock, asks, mine)
    assert told["impressions_a_day"]["low"] <= placed <= told["impressions_a_day"]["high"]
    assert placed > 0
    again = await estimate(service, mine)
    assert again["winnable_a_day"]["low"] <= placed <= again["winnable_a_day"]["high"]


def wants(campaign: Any, ask: Ask) -> bool:
    targeting, context = campaign.get("targeting", {}), ask["context"]
    return all(
        context[one] in targeting[many]
        for many, one in (("countries", "country"), ("platforms", "platform"))
        if many in targeting
    )


@pytest.mark.slow
async def test_all_is_counted_where_all_is_recorded(service: Service, clock: Any) -> None:
    """At a rate of 1 the sample is the traffic itself, and the answer what came of it."""
    await market(service, rate=1.0)
    mine, asks = await hopeful(service), asks_of_a_day(4)
    await day(service, clock, asks, mine)
    told = await estimate(service, mine)
    looking = sum(ask["feed_length"] > 3 for ask in asks)
    assert told["decisions"] == looking
    assert told["requests_a_day"]["estimate"] == told["matching_a_day"]["estimate"] == looking
    await service.call("POST", f"/v1/campaigns/{mine}/resume")
    placed = await day(service, clock, asks, mine)
    assert told["winnable_a_day"]["estimate"] == pytest.approx(placed, abs=1)


async def test_what_was_to_be_explained_is_no_sample(service: Service, clock: Any) -> None:
    await market(service, rate=1.0)
    mine, asks = await hopeful(service), asks_of_a_day(5)[:150]
    await day(service, clock, asks, mine)
    before = await estimate(service, mine)
    for nth in range(40):
        body = {"viewer": f"x-{nth}", "feed_length": 12, "context": {"country": "US"}, "explain": True}
        assert (await service.call("POST", "/v1/slots", body, key="analyst")).status == 200
    await service.recording.step(clock())
    assert await service.pools.analyst.fetchval("SELECT count(*) FROM recorded_decisions") == 190
    assert await estimate(service, mine) == before


async def test_budgets_and_caps_are_said(service: Service, clock: Any) -> None:
    await market(service, rate=1.0)
    free = await hopeful(service)
    daily = await hopeful(
        service, budget={"daily": price(30_000)}, caps=[{"scope": "ad", "count": 1, "window_s": 60}]
    )
    total = await hopeful(service, budget={"total": price(60_000)}, pacing="asap")
    await day(service, clock, asks_of_a_day(6)[:288], free)
    unbound, of_daily, of_total = [await estimate(service, of) for of in (free, daily, total)]
    each = unbound["price_per_thousand"]["micros"] / 1_000
    assert 1_000 < each < 3_250
    assert (of_daily["limited_by"], of_total["limited_by"]) == ("daily_budget", "total_budget")
    assert of_daily["impressions_a_day"]["estimate"] == pytest.approx(30_000 / each, abs=1)
    assert of_total["impressions_a_day"]["estimate"] == pytest.approx(60_000 / each, abs=2)
    assert of_daily["winnable_a_day"] == unbound["winnable_a_day"]
    assert [of["upper_bound"] for of in (unbound, of_daily, of_total)] == [False, True, False]


async def test_no_bid_of_one_or_two_others_is_told(service: Service, clock: Any) -> None:
    service.recording._rate = 1.0
    for micros in (1_000_000, 2_000_000):
        await service.plant(bid=bid(micros))
    await service.go_live()
    mine = await hopeful(service)
    await day(service, clock, asks_of_a_day(7)[:200], mine)
    told = await estimate(service, mine)
    assert told["reason"] == "too_few_advertisers"
    hidden = ("winnable_a_day", "impressions_a_day", "limited_by", "price_per_thousand")
    assert [told[name] for name in hidden] == [None] * 4
    assert told["matching_a_day"]["estimate"] > 0
    await service.call("PATCH", f"/v1/campaigns/{mine}", {"bid": bid(1_000)}, If_Match="*")
    assert await estimate(service, mine) == told, "no bid of its own tells it more"


async def test_a_new_service_says_that_it_knows_too_little(service: Service) -> None:
    ids = await service.plant()
    told = await estimate(service, ids["campaign"])
    figures = (
        "requests_a_day",
        "matching_a_day",
        "winnable_a_day",
        "impressions_a_day",
        "price_per_thousand",
    )
    assert (told["decisions"], told["reason"]) == (0, "too_few_decisions")
    assert [told[name] for name in figures] == [None] * 5


async def test_custom_targeting_cannot_be_told_and_a_campaign_without_ads_can(
    service: Service, clock: Any
) -> None:
    await market(service, rate=1.0)
    custom = await hopeful(service, targeting={"custom": {"team": ["red"]}})
    owner = (await service.call("GET", f"/v1/campaigns/{custom}")).body["advertiser"]
    body = {"advertiser": owner, "name": "bare", "starts_at": "2027-01-01T00:00:00Z", "bid": bid(3_250_000)}
    bare = (await service.made("/v1/campaigns", body | {"billable": "impression"}))["id"]
    await day(service, clock, asks_of_a_day(8)[:200], custom)
    told = await estimate(service, custom)
    assert (told["reason"], told["matching_a_day"]) == ("custom_targeting", None)
    assert told["requests_a_day"]["estimate"] > 0
    assert (await estimate(service, bare))["winnable_a_day"]["estimate"] > 0


async def test_one_at_a_time_and_no_longer_than_it_may(
    service: Service, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await market(service, rate=1.0)
    mine = await hopeful(service)
    await day(service, clock, asks_of_a_day(9)[:150], mine)
    path = f"/v1/campaigns/{mine}/estimate"
    replies = await asyncio.gather(*(service.call("GET", path) for _ in range(4)))
    assert sorted({reply.status for reply in replies}) in ([200], [200, 503])
    refused = [reply for reply in replies if reply.status == 503]
    assert all(reply.headers["Retry-After"] == "2" for reply in refused)
    assert refused, "control: they overlapped"
    assert (await service.call("GET", path)).status == 200
    monkeypatch.setattr(sampled, "LOOKED_AT_S", 0.0)
    late = await service.call("GET", path)
    assert (late.status, late.headers["Retry-After"]) == (503, "1")
    monkeypatch.undo()
    assert (await service.call("GET", path)).status == 200


async def test_of_hours_with_more_decisions_than_are_looked_at_each_stands_for_its_own_requests(
    service: Service, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Most of the day's requests come in two of its hours, and most of these want no ads of the campaign."""
    await market(service, rate=1.0)
    mine = await hopeful(service, targeting={"countries": ["DE"]})
    began_ms, wanted = clock.now_ms, 0
    clock.advance(ROUND_MS)  # or what is counted now would be written down with what comes an hour later
    for hour in range(24):
        for nth in range(60 if hour in (8, 20) else 6):
            country = "ID" if hour in (8, 20) else "DE"
            await service.refresh.step(clock())
            body = {
                "viewer": f"v-{hour}-{nth}",
                "feed_length": 8,
                "max_ads": 1,
                "context": {"country": country},
            }
            assert (await service.call("POST", "/v1/slots", body, key="feed")).status == 200
            wanted += country == "DE"
        await service.step()
        for minute in range(10, 61, 2):
            clock.now_ms = began_ms + hour * HOUR_MS + minute * 60_000
            await service.refresh.step(clock())
        await service.recording.step(clock())
    monkeypatch.setattr(sampled, "DECISIONS_MAX", 24 * 5)
    told = await estimate(service, mine)
    assert told["decisions"] == 24 * 5
    assert told["requests_a_day"]["estimate"] == 22 * 6 + 2 * 60
    assert told["matching_a_day"]["estimate"] == wanted == 22 * 6


async def test_requests_go_on_between_the_pieces(
    service: Service, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await market(service, rate=1.0)
    mine = await hopeful(service)
    await day(service, clock, asks_of_a_day(10), mine)
    at_once: list[int] = []
    judge = Hindsight.judge

    def judged(*given: Any) -> Any:
        at_once[-1] += 1
        return judge(*given)

    async def tick() -> None:
        while True:
            at_once.append(0)
            await asyncio.sleep(0)

    monkeypatch.setattr(Hindsight, "judge", judged)
    for piece, bounded in ((sampled.PIECE, True), (10_000, False)):
        monkeypatch.setattr(sampled, "PIECE", piece)
        at_once[:] = [0]
        ticking = asyncio.create_task(tick())
        assert (await estimate(service, mine))["decisions"] > 150
        ticking.cancel()
        most = max(at_once)
        assert most <= piece if bounded else most > 4, "the control does all of an hour at once"


async def test_the_sample_is_found_by_its_key(service: Service, clock: Any) -> None:
    await market(service, rate=1.0)
    await day(service, clock, asks_of_a_day(11)[:60], 0)
    end_ms = clock.now_ms
    starts = range(end_ms - DAY_MS, end_ms, HOUR_MS)
    ids = [sampled._least_id(moment) for moment in (*starts, end_ms)]
    values = list(map(day_of, starts)), ids[:-1], ids[1:]
    async with service.pools.analyst.acquire() as connection, connection.transaction():
        rows = await connection.fetch(SQL.sample, *values, 2)
        assert {from_ms(decode(record).now_ms).hour for _, record in rows} == {hour for hour, _ in rows}
        assert max([hour for hour, _ in rows].count(hour) for hour, _ in rows) == 2
        await connection.execute("SET LOCAL enable_seqscan = off")
        for statement, given in ((SQL.sample, (*values, 2)), (SQL.requests, (0, 1_000))):
            plan = "\n".join(row[0] for row in await connection.fetch(f"EXPLAIN {statement}", *given))
            assert "Seq Scan" not in plan, plan
            assert "Sort" not in plan, plan
