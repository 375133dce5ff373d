from typing import Any

import msgspec
import pytest
from market import NOW_MS, Market, ToldRates, make_ad, make_ask, make_view, per_click

from adserve.domain.ads import Tier
from adserve.domain.facts import EXPOSURES_UNKNOWN
from adserve.domain.ids import derived_uuid7, derived_uuid7s
from adserve.domain.slots import Context, NoFill
from adserve.domain.surfaces import Surface
from adserve.domain.targeting import Targeting
from adserve.limits.leases import Hold
from adserve.limits.reservations import Grant, Past
from adserve.limits.rules import ALL, Rule, campaign_key
from adserve.selection.decide import Offer, Plan, award, hold_micros, plan
from adserve.selection.pricing import Contender
from adserve.selection.ranking import EVENT_RATE_MIN

NOTHING_YET = Past({}, None)
SEED = 2**100 + 7


def contenders_of(planned: Plan) -> tuple[Contender, ...]:
    return tuple(map(planned.ranked.contender, range(len(planned.ranked.ads))))


def make_offer(view: Any, **told: Any) -> Offer:
    ask = make_ask(**told)
    planned = plan(ask, view, NOTHING_YET, 32, NOW_MS, SEED)
    return Offer(
        decision=derived_uuid7(NOW_MS, SEED, 8),
        viewer_cap=ask.viewer.cap,
        viewer_log=ask.viewer.log,
        surface=ask.surface,
        country=ask.context.country or "",
        platform=ask.context.platform or "",
        floor_micros=planned.floor_micros,
        positions=planned.positions,
        contenders=contenders_of(planned),
        holds=tuple(Hold(contender.ad.campaign.id, 20_454, 1) for contender in contenders_of(planned)),
        tickets=tuple(derived_uuid7s(NOW_MS, SEED, len(planned.positions))),
        model="told",
        catalogue_version=7,
        epoch=3,
        issued_at_ms=NOW_MS,
        expires_at_ms=NOW_MS + 3_600_000,
    )


def bids(*prices: int) -> list[Any]:
    return [make_ad(number, bid_micros=price * 1_000) for number, price in enumerate(prices, start=1)]


def test_the_same_inputs_plan_and_award_the_same() -> None:
    ads = [*bids(*[5] * 12), per_click(20, 500_000)]
    first, second = (make_view(ads) for _ in range(2))
    told = {"context": Context(country="ID", age=30, interests=("tea",)), "personalised": True}
    past = Past({campaign_key(3): 2, ALL: 2}, None)
    plans = [plan(make_ask(**told), view, past, 8, NOW_MS, SEED) for view in (first, second)]
    ranked = [
        [(each.ad.id, each.value_micros, each.click_rate) for each in contenders_of(planned)]
        for planned in plans
    ]
    assert ranked[0] == ranked[1]
    grant = Grant((0, 2), 3, ())
    awards = [award(make_offer(view), grant) for view in (first, second)]
    assert awards[0] == awards[1]
    others = plan(make_ask(**told), first, past, 8, NOW_MS, SEED + 1)
    assert [each.ad.id for each in contenders_of(others)] != [number for number, *_ in ranked[0]]


@pytest.mark.parametrize(
    ("told", "ads", "reason"),
    [
        ({"ads_allowed": False}, bids(5), NoFill.OPTED_OUT),
        ({"feed_length": 4}, bids(5), NoFill.FEED_TOO_SHORT),
        ({"authors": ("a",) * 30}, bids(5), NoFill.FEED_TOO_SHORT),
        ({}, [], NoFill.NO_ELIGIBLE_AD),
        ({}, [make_ad(1, targeting=Targeting(countries=("DE",)))], NoFill.NO_ELIGIBLE_AD),
        ({}, [make_ad(1, starts_at_ms=NOW_MS + 1)], NoFill.NO_ELIGIBLE_AD),
        ({"floor_micros": 5_001}, bids(5), NoFill.BELOW_FLOOR),
    ],
)
def test_why_there_is_no_plan(told: dict[str, Any], ads: list[Any], reason: NoFill) -> None:
    planned = plan(make_ask(**told), make_view(ads), NOTHING_YET, 32, NOW_MS, SEED)
    assert (planned.no_fill, contenders_of(planned)) == (reason, ())


def test_a_floor_equal_to_the_bid_is_met() -> None:
    planned = plan(make_ask(floor_micros=5_000), make_view(bids(5)), NOTHING_YET, 32, NOW_MS, SEED)
    assert planned.no_fill is None


async def test_the_floor_of_the_viewers_country_is_the_least_price() -> None:
    market = Market([make_ad(1)], surface=Surface(floors_micros={"ID": 3_000_000}))
    (only,) = (await market.answer()).placements
    assert only.ticket.price_micros == 3_000
    (whole,) = award(make_offer(market.view), Grant((0,), None, ()))
    assert whole.ticket.price_micros == 3_000, "also where no shelf is asked"


PRIVATE = Context(country="ID", age=30, interests=("tea",), custom={"team": "red"})


def what_was_asked(personalised: bool) -> tuple[Any, list[int]]:
    rates = ToldRates()
    past = Past({campaign_key(1): 4, ALL: 6}, None)
    plan(
        make_ask(context=PRIVATE, personalised=personalised),
        make_view(bids(5, 5), rates=rates),
        past,
        32,
        NOW_MS,
        SEED,
    )
    ((facts, exposures),) = rates.asked
    return facts, exposures


def test_without_consent_neither_interests_nor_age_nor_history_are_looked_at() -> None:
    facts, exposures = what_was_asked(personalised=False)
    assert (facts.age, facts.interests, facts.custom, facts.seen) == (None, (), (), None)
    assert exposures == [EXPOSURES_UNKNOWN] * 2


def test_with_consent_they_are() -> None:
    facts, exposures = what_was_asked(personalised=True)
    assert (facts.age, facts.interests, facts.custom, facts.seen) == (30, ("tea",), (("team", "red"),), 4)
    assert exposures == [4, 0]


@pytest.mark.parametrize(
    "targeting", [{"age": {"min": 18}}, {"interests": ["tea"]}, {"custom": {"team": ["red"]}}], ids=str
)
def test_personal_targeting_needs_consent(targeting: dict[str, Any]) -> None:
    view = make_view([make_ad(1, targeting=msgspec.convert(targeting, Targeting))])
    with_consent, without = (
        plan(make_ask(context=PRIVATE, personalised=told), view, NOTHING_YET, 32, NOW_MS, SEED)
        for told in (True, False)
    )
    assert with_consent.no_fill is None
    assert without.no_fill is NoFill.NO_ELIGIBLE_AD


def test_each_award_pays_the_next_granted_ad_of_another_advertiser() -> None:
    ads = [
        make_ad(1, advertiser=1, bid_micros=9_000_000),
        make_ad(2, advertiser=1, bid_micros=8_000_000),
        make_ad(3, advertiser=2, bid_micros=7_000_000),
        make_ad(4, advertiser=3, bid_micros=6_000_000),
        make_ad(5, advertiser=4, bid_micros=5_000_000),
    ]
    offer = make_offer(make_view(ads))
    capped = Rule(campaign_key(4), 1, 60_000)
    prices = [given.ticket.price_micros for given in award(offer, Grant((0, 1, 2), 4, ((3, capped),)))]
    assert prices == [7_000, 7_000, 5_000], "the capped fourth sets no price, the runner-up does"
    alone = [given.ticket.price_micros for given in award(offer, Grant((0, 1), None, ()))]
    assert alone == [1, 1], "no rival: nobody bids against himself"


def test_guaranteed_ads_go_first_and_stay_out_of_the_auction() -> None:
    ads = [make_ad(1, bid_micros=2_000_000, tier=Tier.GUARANTEED), *bids(0, 9, 8)[1:]]
    offer = make_offer(make_view(ads))
    assert [contender.ad.id for contender in offer.contenders] == [1, 2, 3]
    prices = [given.ticket.price_micros for given in award(offer, Grant((0, 1), 2, ()))]
    assert prices == [2_000, 8]


def test_a_ticket_seals_what_its_events_will_need() -> None:
    ads = [make_ad(1, separation=("drinks",), caps=()), *bids(0, 3)[1:]]
    offer = make_offer(make_view(ads), floor_micros=2_000)
    (given,) = award(offer, Grant((0,), 1, ()))
    ticket = given.ticket
    assert (given.place, given.position) == (0, offer.positions[0])
    assert (ticket.ticket, ticket.decision) == (offer.tickets[0], offer.decision)
    assert (ticket.lease, ticket.budget_day, ticket.epoch) == (1, 20_454, 3)
    assert (ticket.price_micros, ticket.billable, ticket.labels) == (3, "impression", ("drinks",))
    assert (ticket.viewer_cap, ticket.viewer_log) == (offer.viewer_cap, offer.viewer_log)
    assert (ticket.issued_at_ms, ticket.expires_at_ms) == (NOW_MS, NOW_MS + 3_600_000)
    assert (ticket.catalogue_version, ticket.model, ticket.country) == (7, "told", "ID")
    assert ticket.view_least_ms == 1_000


def test_a_click_holds_its_expected_price_with_a_margin() -> None:
    view = make_view([per_click(1, 100_000), make_ad(2)], rates=ToldRates({1: 0.01}))
    click, impression = view.surfaces["status"].ads
    assert hold_micros(click, 0.01, 2.0) == 2_000
    assert hold_micros(click, 0.01, 1_000.0) == 100_000, "never more than the bid"
    assert hold_micros(click, 0.01, 1e-9) == 1
    assert hold_micros(impression, 0.01, 2.0) == 5_000


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan")])
def test_a_rate_that_cannot_be_divided_by_is_the_least(rate: float) -> None:
    view = make_view([per_click(1, 100_000), make_ad(2)], rates=ToldRates({1: rate, 2: rate}))
    best, other = contenders_of(plan(make_ask(), view, NOTHING_YET, 32, NOW_MS, SEED))
    assert (best.ad.id, best.value_micros) == (2, 5_000_000)
    assert other.click_rate == EVENT_RATE_MIN
