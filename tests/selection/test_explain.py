from collections import Counter
from random import Random
from typing import Any

import pytest
from market import GRANT_MICROS, NOW_MS, Market, fund, make_ad
from msgspec.structs import replace

from adserve.domain.ads import Cap
from adserve.domain.rollouts import SurfaceRollout
from adserve.domain.targeting import Targeting
from adserve.rollout.assignment import bucket_of
from adserve.selection.slots import RANKED_PER_CANDIDATE, Bounds
from adserve.settings import Surface


async def explained(market: Market, **told: Any) -> dict[str, Any]:
    decision = await market.answer(explain=True, **told)
    assert decision.explanation is not None
    return decision.explanation


def reasons(explanation: dict[str, Any]) -> dict[int, str | None]:
    return {each["ad"]: each["lost"] and each["lost"]["reason"] for each in explanation["ads"]}


async def test_every_reason_is_named() -> None:
    surface = Surface(separation_s=600)
    label = {"separation": ("drinks",)}
    ads = [
        make_ad(1, bid_micros=9_000_000, caps=(Cap("campaign", 1, 3_600),)),
        make_ad(2, bid_micros=8_000_000, **label),
        make_ad(3, bid_micros=7_000_000, **label),
        make_ad(4, bid_micros=6_000_000),
        make_ad(5, bid_micros=5_000_000),
        make_ad(6, bid_micros=4_000_000),
        make_ad(7, bid_micros=3_000_000),
        make_ad(8, bid_micros=100),
        make_ad(9, targeting=Targeting(countries=("DE",))),
    ]
    market = Market(ads, surface=surface, fund_micros=0)
    fund(market.book, [ad for ad in ads if ad.id != 5])
    market.bounds = Bounds(candidates_max=5)
    first = await market.answer(max_ads=1, floor_micros=1_000)
    assert [placement.ad.id for placement in first.placements] == [1]
    await market.counters.hide(replace(first.placements[0].ticket, advertiser=4), NOW_MS)

    explanation = await explained(market, max_ads=1, floor_micros=1_000)
    assert reasons(explanation) == {
        1: "frequency_capped", 2: None, 3: "separation", 4: "hidden_by_viewer", 5: "no_budget", 6: "outbid",
        7: "not_reached", 8: "below_floor",
    }  # fmt: skip  # laid out as rows
    assert explanation["funnel"] == {
        "eligible": 9, "targeted": 8, "above_floor": 7, "ranked": 7, "in_budget": 5, "under_cap": 2, "placed": 1,
    }  # fmt: skip  # laid out as rows


async def test_minimum_time_is_a_reason_of_its_own() -> None:
    market = Market([make_ad(1)], surface=Surface(min_time_s=60))
    await market.answer()
    (lost,) = (await explained(market))["ads"]
    assert lost["lost"] == {"reason": "minimum_time", "key": "t", "count": 1, "window_s": 60}


async def test_a_placed_ad_shows_its_price_and_what_is_left_of_its_caps() -> None:
    market = Market(
        [make_ad(1, caps=(Cap("campaign", 3, 3_600), Cap("all", 5, 60))), make_ad(2, bid_micros=2_000_000)]
    )
    (first, second) = (await explained(market, max_ads=2))["ads"]
    assert (first["ad"], first["position"], first["price_micros"], first["value_micros"]) == (
        1,
        3,
        2_000,
        5_000_000,
    )
    assert [cap["left"] for cap in first["caps"]] == [2, 3]
    assert second["caps"] == []


async def test_the_rollout_is_shown_also_to_who_is_not_in_it() -> None:
    market = Market([make_ad(1)], rollout=SurfaceRollout(percent_bp=0, countries={"ID": 1}))
    explanation = await explained(market)
    bucket = bucket_of("status", "u-1")
    assert explanation["rollout"] == {"bucket": bucket, "admitted_below": 1, "in_rollout": bucket < 1}
    assert explanation["ads"] == []


async def test_it_tells_of_the_snapshot_that_decided() -> None:
    market = Market([make_ad(1)])
    newer = Market([]).view
    reserve = market.counters.reserve

    async def reserve_while_the_view_moves(*given: Any) -> Any:
        market.view = newer
        return await reserve(*given)

    market.counters.reserve = reserve_while_the_view_moves
    assert (await explained(market))["funnel"]["eligible"] == 1


def check_sums(explanation: dict[str, Any], candidates_max: int) -> None:
    funnel = explanation["funnel"]
    assert list(funnel.values()) == sorted(funnel.values(), reverse=True)
    lost = Counter(reasons(explanation).values())
    capped = lost["frequency_capped"] + lost["separation"] + lost["minimum_time"] + lost["hidden_by_viewer"]
    assert funnel["ranked"] == min(funnel["above_floor"], candidates_max * RANKED_PER_CANDIDATE)
    assert funnel["targeted"] == len(explanation["ads"]) + explanation["ads_left_off"]
    assert funnel["targeted"] == funnel["above_floor"] + lost["below_floor"]
    assert funnel["above_floor"] == funnel["in_budget"] + lost["no_budget"] + lost["not_reached"]
    assert funnel["in_budget"] == funnel["under_cap"] + capped
    assert funnel["under_cap"] == funnel["placed"] + lost["outbid"]
    assert funnel["placed"] == lost[None]
    if lost["not_reached"]:
        assert funnel["in_budget"] == candidates_max


@pytest.mark.parametrize("seed", range(20))
async def test_the_figures_add_up(seed: int) -> None:
    chance = Random(seed)
    ads = [
        make_ad(
            number,
            advertiser=chance.randrange(5),
            campaign=number // 2,
            bid_micros=chance.randrange(1, 9) * 1_000_000,
            caps=(Cap("campaign", 1, 3_600),) if number // 2 % 3 == 0 else (),
            separation=("drinks",) if number % 5 == 0 else (),
        )
        for number in range(chance.randrange(30))
    ]
    market = Market(ads, surface=Surface(separation_s=60, min_time_s=1), fund_micros=0)
    fund(market.book, [ad for ad in ads if chance.random() < 0.7], GRANT_MICROS)
    market.bounds = Bounds(candidates_max=chance.randrange(1, 12))
    for _ in range(12):
        explanation = await explained(market, viewer=f"u-{chance.randrange(3)}", floor_micros=2_000_000)
        check_sums(explanation, market.bounds.candidates_max)
        market.now_ms += chance.choice((0, 500, 1_001))
