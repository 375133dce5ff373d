from collections import Counter

import msgspec
import pytest

from adserve.api.campaigns import NewCampaign
from adserve.api.slots import SlotsRequest
from loadtest import market


def test_campaigns_and_requests_are_what_the_service_takes() -> None:
    brands = market.brands(200, 1)
    campaigns = [campaign for brand in brands for campaign in brand.campaigns]
    assert len(campaigns) == 200
    msgspec.convert([{"advertiser": 1, **campaign} for campaign in campaigns], list[NewCampaign])
    requests = msgspec.convert(market.slot_requests(300, 1), list[SlotsRequest])
    assert {len(request.feed) for request in requests} == {market.FEED_ITEMS}
    assert len({request.viewer for request in requests}) == 300


def test_the_same_seed_draws_the_same_market() -> None:
    assert market.brands(50, 1) == market.brands(50, 1) != market.brands(50, 2)
    assert market.slot_requests(50, 1) == market.slot_requests(50, 1) != market.slot_requests(50, 2)


def test_the_market_is_mixed() -> None:
    campaigns = [campaign for brand in market.brands(2_000, 1) for campaign in brand.campaigns]
    untargeted = sum(not campaign["targeting"] for campaign in campaigns) / len(campaigns)
    assert untargeted == pytest.approx(market.UNTARGETED, abs=0.02)
    assert sum(bool(campaign["caps"]) for campaign in campaigns) / len(campaigns) == pytest.approx(
        0.6, abs=0.05
    )
    assert {campaign["billable"] for campaign in campaigns} == {"impression", "view", "click"}
    countries = Counter(request["context"]["country"] for request in market.slot_requests(2_000, 1))
    (most, first), (_, second) = countries.most_common(2)
    assert most == market.COUNTRIES[0]
    assert first > 1.5 * second
