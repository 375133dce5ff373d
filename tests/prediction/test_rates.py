"""Model and prior are twins: what holds for one as a source of click rates holds for the other."""

from pathlib import Path

import numpy as np
import pytest

from adserve.domain.ads import Ad, Campaign, Creative, Tier
from adserve.domain.facts import EXPOSURES_UNKNOWN, ViewerFacts
from adserve.domain.ids import AdId, AdvertiserId, CampaignId, CreativeId
from adserve.domain.targeting import Targeting
from adserve.prediction.rates import load_or_prior
from adserve.selection.compiled import Rates


def an_ad(number: int) -> Ad:
    campaign = Campaign(
        id=CampaignId(number),
        advertiser=AdvertiserId(3),
        name="",
        starts_at_ms=0,
        ends_at_ms=None,
        time_zone="UTC",
        bid_model="cpc",
        bid_micros=1,
        currency="USD",
        billable="click",
        budget_daily_micros=None,
        budget_total_micros=None,
        pacing="even",
        tier=Tier.AUCTION,
        targeting=Targeting(),
        caps=(),
        separation=(),
    )
    creative = Creative(CreativeId(1), 1, "image", "", 1, 1, "", "", "shop_now", "https://shop.example/")
    return Ad(AdId(number), AdvertiserId(3), "", campaign, creative)


@pytest.fixture(params=["model", "prior"])
def rates(request: pytest.FixtureRequest, folder: Path) -> Rates:
    found, _ = load_or_prior(folder if request.param == "model" else None, {1: (100, 9)})
    return found


def test_a_rate_a_row_between_none_and_all(rates: Rates) -> None:
    prepared = rates.prepare([an_ad(number) for number in range(5)])
    rows = np.array([4, 1, 1], np.int32)
    exposures = np.array([0, 9, EXPOSURES_UNKNOWN])
    answer = rates.click(prepared, rows, ViewerFacts("ID", interests=("music",)), exposures)
    assert answer.dtype == np.float64
    assert answer.shape == (3,)
    assert np.all((answer > 0) & (answer < 1))


def test_asking_twice_gives_the_same(rates: Rates) -> None:
    prepared = rates.prepare([an_ad(1)])
    nobody, rows = ViewerFacts(), np.zeros(1, np.int32)
    first, second = (rates.click(prepared, rows, nobody, np.zeros(1, np.int64)).tolist() for _ in range(2))
    assert first == second


def test_an_empty_catalogue(rates: Rates) -> None:
    prepared = rates.prepare([])
    nothing = np.array([], np.int32)
    assert len(rates.click(prepared, nothing, ViewerFacts(), nothing.astype(np.int64))) == 0
