"""What hindsight says of a campaign in a decision, against what that decision, or the same one with the campaign in it, came to."""

from collections import Counter
from random import Random
from typing import Any

import numpy as np
import pytest
from market import NOW_MS, Market, ToldRates, make_ad, make_ask, make_view, per_click
from msgspec.structs import replace
from test_index import RANGED, reaches
from test_recording import random_ask, random_market, recorded

from adserve.domain.ads import Ad, Cap, Tier
from adserve.domain.slots import Context
from adserve.domain.surfaces import Surface
from adserve.domain.targeting import Exclusion, Targeting
from adserve.selection.compiled import CompiledAd, compiled
from adserve.selection.hindsight import Hindsight, Outcome, looked, tells, versions_of, worth_micros
from adserve.selection.made import Made
from adserve.selection.ranking import value_of, values_of
from adserve.selection.recording import RecordRefused, ad_of

SEEDS = 15


def judged(made: Made, hindsight: Hindsight, missing: bool = False) -> Outcome:
    record, facts = recorded(made)
    named = {candidate.digest for candidate in versions_of(record)}
    versions: dict[bytes, CompiledAd] = {
        digest: compiled(ad_of(of), Surface())
        for digest, of in facts.items()
        if digest in named and not missing
    }
    return hindsight.judge(record, versions)


async def decided(market: Market, asks: list[Any], seed: int) -> list[Made]:
    chance, noted = Random(seed), list[Made]()
    market.notes = (noted.append,)
    for ask in asks:
        market.seed = chance.getrandbits(128)
        await market.slots.answer(ask)
        market.now_ms += 300
    return noted


def random_asks(seed: int, count: int, **told: Any) -> list[Any]:
    chance = Random(seed)
    return [replace(random_ask(chance), explain=False, **told) for _ in range(count)]


def rates_of(market: Market) -> Any:
    return market.view.rates


@pytest.mark.parametrize("seed", range(6))
async def test_of_a_campaign_that_was_there_it_says_what_became_of_it(seed: int) -> None:
    market = random_market(seed)
    hindsights = {ad.campaign.id: Hindsight([ad], rates_of(market), {}) for ad in market.ads}
    said: Counter[str] = Counter()
    for made in await decided(market, random_asks(seed, 25), seed):
        if made.planned.viewer is None:
            assert not looked(recorded(made)[0])
            continue
        prices = {given.ticket.campaign: given.ticket.price_micros for given in made.awards}
        ranked, held, grant = made.planned.ranked.ads, made.held, made.grant
        capped = {held.places[place] for place, _ in grant.capped} if grant else set()
        offered = {ranked[place].campaign for place in held.places if grant and place not in capped}
        forbidden = {ranked[place].campaign for place in capped}
        for campaign, hindsight in hindsights.items():
            outcome = judged(made, hindsight)
            if campaign in prices:
                rate = hindsight._ads[0].campaign.billable == "click" and rates_of(market)._rates[campaign]
                assert outcome[:2] == (True, 1)
                assert outcome.cost_micros == pytest.approx(prices[campaign] * (rate or 1.0))
                said["placed"] += 1
            elif campaign in forbidden:
                assert outcome[:2] == (True, 0)
                said["capped"] += 1
            elif campaign in offered:
                assert outcome[:2] == (True, 0)
                said["outbid"] += 1
    assert said["placed"]
    if seed == 0:
        assert min(said["outbid"], said["capped"]) > 0


def uncapped(chance: Random) -> list[Ad]:
    return [
        (per_click if chance.random() < 0.4 else make_ad)(
            number,
            advertiser=chance.randrange(8),
            bid_micros=chance.randrange(1, 9) * 1_000_000,
            tier=Tier.GUARANTEED if chance.random() < 0.15 else Tier.AUCTION,
            targeting=Targeting(countries=("ID",)) if chance.random() < 0.4 else Targeting(),
        )
        for number in range(1, chance.randrange(3, 12))
    ]


async def compared(seed: int) -> list[tuple[Outcome, int, float]]:
    """For each decision of a market without a campaign: what hindsight says of it there; how many of its ads the same market places that
    has it, and what these are expected to cost."""
    chance = Random(seed)
    ads = uncapped(chance)
    several = [
        replace(
            make_ad(900 + nth), campaign=make_ad(900, bid_micros=chance.randrange(2, 7) * 1_000_000).campaign
        )
        for nth in range(chance.randrange(1, 4))
    ]
    several = [
        replace(ad, advertiser=several[0].campaign.advertiser, campaign=several[0].campaign) for ad in several
    ]
    rates = ToldRates({ad.id: chance.random() / 50 for ad in [*ads, *several]})
    surface = Surface(floors_micros={"ID": 3_000_000})
    asks = random_asks(seed, 40)
    without, within = (Market(of, rates=rates, surface=surface) for of in (ads, [*ads, *several]))
    hindsight = Hindsight(several, rates, {})
    found = []
    pairs = zip(await decided(without, asks, seed), await decided(within, asks, seed), strict=True)
    for before, after in pairs:
        if before.planned.viewer is None:
            continue
        own = [given.ticket for given in after.awards if given.ticket.campaign == hindsight.campaign.id]
        found.append((judged(before, hindsight), len(own), float(sum(ticket.price_micros for ticket in own))))
    return found


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_it_says_what_the_same_decision_comes_to_with_the_campaign_in_it(seed: int) -> None:
    for outcome, placed, cost_micros in await compared(seed):
        assert outcome.matched
        assert outcome.placed == placed
        assert outcome.cost_micros == pytest.approx(cost_micros)


async def test_among_them_are_all_kinds() -> None:
    placed = Counter([placed for seed in range(SEEDS) for _, placed, _ in await compared(seed)])
    assert min(placed[0], placed[1], placed[2]) > 20


async def test_control_who_does_not_look_at_rivals_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adserve.selection.hindsight._admitted", lambda _record, _versions: iter(()))
    assert any([outcome.placed != placed for seed in range(5) for outcome, placed, _ in await compared(seed)])


COUNTRIES, LANGUAGES, PLATFORMS = ("ID", "DE", None), ("id", "pt-BR", "pt", None), ("android", "ios", None)


def random_targeting(chance: Random) -> Targeting:
    def part(kind: Any, **more: Any) -> Any:
        told: dict[str, Any] = {}
        if chance.random() < 0.3:
            told["countries"] = (chance.choice(("ID", "DE")),)
        if chance.random() < 0.3:
            told["languages"] = (chance.choice(("id", "pt", "pt-BR")),)
        if chance.random() < 0.3:
            told["platforms"] = (chance.choice(("android", "ios")),)
        if chance.random() < 0.3:
            told["interests"] = (chance.choice(("music", "food")),)
        if chance.random() < 0.3:
            told["hours"] = tuple(chance.sample(range(24), 14))
        if chance.random() < 0.3:
            low = chance.randrange(18, 40)
            told["age"] = RANGED["age"][0](low, low + 15)
        return kind(**told, **more)

    exclude = part(Exclusion) if chance.random() < 0.4 else Exclusion()
    targeting: Targeting = part(Targeting, exclude=exclude)
    return targeting


async def matches_of(seed: int, kind: type[Hindsight] = Hindsight) -> list[tuple[bool, bool]]:
    """What hindsight and the predicate say of viewers and campaigns, that had ended or not begun when the decisions were made."""
    chance = Random(seed)
    asks = [
        make_ask(
            f"u-{number}",
            personalised=chance.random() < 0.7,
            context=Context(
                country=chance.choice(COUNTRIES),
                language=chance.choice(LANGUAGES),
                platform=chance.choice(PLATFORMS),
                age=chance.choice((None, 17, 25, 39, 54)),
                interests=(chance.choice(("music", "food", "sport")),),
                app_version="2.26.1",
            ),
        )
        for number in range(15)
    ]
    market = Market([make_ad(1)])
    later_ms = NOW_MS + 10**9
    ads = [make_ad(10 + nth, targeting=random_targeting(chance), starts_at_ms=later_ms) for nth in range(15)]
    found = []
    for made in await decided(market, asks, seed):
        assert made.planned.viewer is not None
        for ad in ads:
            live = replace(ad, campaign=replace(ad.campaign, starts_at_ms=0))
            expected = reaches(live, made.planned.viewer, made.now_ms)
            found.append((judged(made, kind([ad], ToldRates(), {})).matched, expected))
    return found


@pytest.mark.parametrize("seed", range(10))
async def test_it_matches_whom_the_predicate_does(seed: int) -> None:
    found = await matches_of(seed)
    assert all(said == expected for said, expected in found)
    assert 20 < sum(expected for _, expected in found) < len(found) - 20


async def test_control_who_forgets_what_is_excluded_is_noticed() -> None:
    class Forgetful(Hindsight):
        def __init__(self, ads: Any, rates: Any, qualities: Any) -> None:
            targeting = replace(ads[0].campaign.targeting, exclude=Exclusion())
            campaign = replace(ads[0].campaign, targeting=targeting)
            super().__init__([replace(ad, campaign=campaign) for ad in ads], rates, qualities)

    found = [pair for seed in range(3) for pair in await matches_of(seed, Forgetful)]
    assert any(said != expected for said, expected in found)


async def test_caps_and_separation_hold_within_one_decision() -> None:
    market = Market([], surface=Surface(separation_s=60))
    (made,) = await decided(market, [make_ask()], 1)
    campaign = make_ad(5).campaign
    for more, placed in (
        ({}, 3),
        ({"caps": (Cap("campaign", 2, 3_600),)}, 2),
        ({"caps": (Cap("ad", 1, 3_600),)}, 3),
        ({"caps": (Cap("all", 1, 3_600),)}, 1),
        ({"separation": ("drinks",)}, 1),
    ):
        ads = [replace(make_ad(nth), advertiser=5, campaign=replace(campaign, **more)) for nth in range(4)]
        assert judged(made, Hindsight(ads, ToldRates(), {})).placed == placed


async def test_a_rule_that_another_met_forbids_all_that_share_it() -> None:
    """As the minimum time between requests does, which is every ad's."""
    market = Market([make_ad(1, caps=(Cap("all", 1, 3_600),)), make_ad(2)], surface=Surface(min_time_s=1))
    first, second = await decided(market, [make_ask(max_ads=1), make_ask(max_ads=1)], 1)
    best = Hindsight([make_ad(3, bid_micros=9_000_000)], ToldRates(), {})
    assert [judged(made, best).placed for made in (first, second)] == [1, 0]
    market.view = make_view(market.ads)
    (third,) = await decided(market, [make_ask()], 1)
    assert judged(third, best).placed == 1


async def test_rivals_are_those_whose_bids_it_hangs_on() -> None:
    """Of four who stand there one is to be beaten, and one sets the price."""
    bids = {1: 9_000_000, 2: 7_000_000, 3: 5_000_000, 4: 3_000_000}
    market = Market([make_ad(number, bid_micros=micros) for number, micros in bids.items()])
    (made,) = await decided(market, [make_ask(max_ads=2)], 1)
    for micros, rivals in ((4_000_000, {2}), (6_000_000, {2}), (8_000_000, {2}), (10_000_000, {1, 2})):
        own = make_ad(8, bid_micros=micros)
        assert judged(made, Hindsight([own], ToldRates(), {})).rivals == rivals
    guaranteed = make_ad(8, bid_micros=1_000_000, tier=Tier.GUARANTEED)
    assert judged(made, Hindsight([guaranteed], ToldRates(), {})).rivals == {2}
    sister = make_ad(8, bid_micros=8_000_000, advertiser=2)
    assert judged(made, Hindsight([sister], ToldRates(), {})).rivals == {3}
    (empty,) = await decided(Market([]), [make_ask()], 1)
    assert judged(empty, Hindsight([own], ToldRates(), {})).rivals == frozenset()


async def test_another_currency_matches_nobody() -> None:
    (made,) = await decided(Market([make_ad(1)]), [make_ask()], 1)
    assert judged(made, Hindsight([make_ad(2, currency="EUR")], ToldRates(), {})) == Outcome()


async def test_facts_that_are_gone_are_no_rival_of_nobody() -> None:
    (made,) = await decided(Market([make_ad(1)]), [make_ask()], 1)
    with pytest.raises(RecordRefused):
        judged(made, Hindsight([make_ad(2)], ToldRates(), {}), missing=True)


def test_custom_values_are_hardly_recorded() -> None:
    custom = {"team": ("red",)}
    assert tells(make_ad(1).campaign)
    assert not tells(make_ad(1, targeting=Targeting(custom=custom)).campaign)
    assert not tells(make_ad(1, targeting=Targeting(exclude=Exclusion(custom=custom))).campaign)


def test_the_worth_of_one_ad_is_that_of_a_row() -> None:
    ads = [make_ad(1), make_ad(2, billable="view"), per_click(3, 90_000), make_ad(4, tier=Tier.GUARANTEED)]
    rates, qualities = ToldRates({3: 0.013}), {ad.id: 0.5 + ad.id / 10 for ad in ads}
    surface = make_view(ads, rates=rates).surfaces["status"]
    surface = type(surface)(Surface(), ads, rates, qualities)
    rows = np.arange(4, dtype=np.int32)
    click_rates = np.array([0.01, 0.01, 0.013, 0.01])
    values = values_of(surface, rows, click_rates).tolist()
    told = zip(surface.ads.tolist(), click_rates.tolist(), strict=True)
    assert [value_of(ad, rate, qualities[ad.ad.id]) for ad, rate in told] == pytest.approx(values)
    assert worth_micros(ads, rates, qualities) == pytest.approx(max(values))
