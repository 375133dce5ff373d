from fractions import Fraction
from math import ceil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from market import make_ad, make_view, per_click

from adserve.domain.ads import Ad, Tier
from adserve.selection.compiled import VIEW_RATE
from adserve.selection.pricing import Contender, clearing_micros

BIDS = st.integers(1, 50_000)


def contend(ad: Ad, click_rate: float = 0.01) -> Contender:
    rate = {"impression": 1.0, "view": VIEW_RATE, "click": click_rate}[ad.campaign.billable]
    compiled = make_view([ad]).surfaces["status"].ads[0]
    return Contender(compiled, ad.campaign.event_bid_micros * rate * 1_000.0, click_rate)


def cpm(number: int, event_bid: int, **told: object) -> Contender:
    return contend(make_ad(number, bid_micros=event_bid * 1_000, **told))


def cpc(number: int, bid: int, click_rate: float, **told: object) -> Contender:
    return contend(per_click(number, bid, **told), click_rate)


CONTENDERS = st.one_of(
    st.builds(cpm, st.integers(1, 4), BIDS, billable=st.sampled_from(["impression", "view"])),
    st.builds(cpc, st.integers(1, 4), BIDS, st.sampled_from([0.001, 0.0123, 0.37])),
)


@given(field=st.lists(CONTENDERS, min_size=1, max_size=5), floor=st.integers(0, 60_000_000))
@settings(derandomize=True, max_examples=150, deadline=None)
def test_a_price_is_between_what_it_must_beat_and_the_bid(field: list[Contender], floor: int) -> None:
    winner, *behind = sorted(field, key=lambda contender: -contender.value_micros)
    price = clearing_micros(winner, behind, floor)
    bid = winner.ad.campaign.event_bid_micros
    rivals = [other.value_micros for other in behind if other.ad.advertiser != winner.ad.advertiser]
    to_beat = max(Fraction(floor), *map(Fraction, rivals), Fraction(0))
    exact = to_beat / (Fraction(winner.value_micros) / bid)
    assert 1 <= price <= bid
    if exact <= bid:
        assert price >= exact * (1 - Fraction(1, 10**11)), "too little"
        assert price - 1 <= exact or price == 1, "too much"
    if winner.value_micros >= floor:
        worth = price * Fraction(winner.value_micros) / bid
        assert worth >= floor * (1 - Fraction(1, 10**11)), "below the floor"


@given(mine=BIDS, theirs=BIDS)
@settings(derandomize=True, max_examples=100, deadline=None)
def test_impressions_are_paid_at_the_second_bid_exactly(mine: int, theirs: int) -> None:
    high, low = max(mine, theirs), min(mine, theirs)
    assert clearing_micros(cpm(1, high), [cpm(2, low)], 0) == low


@pytest.mark.parametrize("rate", [0.0003, 0.003, 0.0123, 0.37])
def test_equal_rates_are_paid_at_the_second_bid_exactly(rate: float) -> None:
    for bid in range(1, 4_000, 7):
        assert clearing_micros(cpc(1, 5_000, rate), [cpc(2, bid, rate)], 0) == bid


def test_a_price_that_needs_no_rounding_is_not_rounded_up() -> None:
    noisy = [bid for bid in range(1, 4_000) if ceil(bid * 0.0123 * 1_000.0 / (1_000.0 * 0.0123)) != bid]
    assert noisy, "floats do make noise here"
    assert all(clearing_micros(cpc(1, 5_000, 0.0123), [cpc(2, bid, 0.0123)], 0) == bid for bid in noisy)


def test_a_click_pays_what_its_rate_makes_of_an_impressions_price() -> None:
    # 2 micros an impression and one click in a hundred: 200 micros a click
    assert clearing_micros(cpc(1, 500, 0.01), [cpm(2, 2)], 0) == 200
    assert clearing_micros(cpm(1, 10), [cpc(2, 333, 0.01)], 0) == 4, "3.33 rounded up"
    view = clearing_micros(cpm(1, 10, billable="view"), [cpm(2, 2)], 0)
    assert view == 3, "2 / 0.7 rounded up"


def test_the_floor_sets_the_price_when_it_is_above_the_runner_up() -> None:
    assert clearing_micros(cpm(1, 5_000), [cpm(2, 1_000)], 3_000_000) == 3_000
    assert clearing_micros(cpm(1, 5_000), [], 2_999_001) == 3_000
    assert clearing_micros(cpm(1, 5_000), [], 0) == 1


def test_nobody_bids_against_himself() -> None:
    own = cpm(2, 4_000, advertiser=1)
    assert clearing_micros(cpm(1, 5_000), [own], 0) == 1
    assert clearing_micros(cpm(1, 5_000), [own, cpm(3, 1_500)], 0) == 1_500


def test_guaranteed_ads_pay_their_own_price_and_set_none() -> None:
    guaranteed = cpm(1, 3_000, tier=Tier.GUARANTEED)
    assert clearing_micros(guaranteed, [cpm(2, 10)], 0) == 3_000
    assert clearing_micros(cpm(3, 5_000), [guaranteed], 0) == 1
