"""What lies on a shelf is the beginning of the order of all matched ads, whatever one viewer has seen."""

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

import numpy as np
import pytest
from market import NOW_MS, ToldRates, make_ad, make_ask, make_view, per_click

from adserve.domain.ads import Ad, Tier
from adserve.domain.slots import Context, NoFill
from adserve.domain.surfaces import Surface
from adserve.domain.targeting import AgeRange, Targeting
from adserve.limits.reservations import Past
from adserve.limits.rules import ALL, campaign_key
from adserve.prediction.features import BUCKETS
from adserve.prediction.model import Model
from adserve.selection import shelves
from adserve.selection.decide import Plan, plan
from adserve.selection.shelves import ROWS_BEHIND_MAX, SHELF_ADS, SHELF_ADS_MAX, Behind, Shelf


class WearingRates:
    """A click becomes less likely (or, told so, likelier) with each exposure."""

    name = "wearing"

    def __init__(self, factor: float = 0.7) -> None:
        self.factor = factor
        self.wears_out = factor <= 1

    def prepare(self, ads: Sequence[Ad]) -> Any:
        return (np.array([0.01 + ad.id % 5 / 400 for ad in ads]),)

    def click(self, prepared: Any, rows: Any, viewer: Any, exposures: Any) -> Any:
        return (
            prepared[0].take(rows) * self.factor ** np.maximum(exposures, 0) * (1 + (viewer.age or 0) / 100)
        )

    def bound(self, prepared: Any, rows: Any) -> Any:
        """Loose, so that it takes some looking to see that all the rest is worse."""
        return prepared[0].take(rows), lambda viewer: 1.5 + (viewer.age or 0) / 100


def make(number: int, told: tuple[int, str, bool, bool, bool]) -> Ad:
    """Few different bids, so that many tie."""
    bid, billable, guaranteed, abroad, adult = told
    of_campaign = {
        "tier": Tier.GUARANTEED if guaranteed else Tier.AUCTION,
        "targeting": Targeting(countries=("DE",) if abroad else (), age=AgeRange(min=18) if adult else None),
    }
    if billable == "click":
        return per_click(number, bid * 100_000, **of_campaign)
    return make_ad(number, bid_micros=bid * 1_000_000, billable=billable, **of_campaign)


def drawn_market(chance: Random) -> tuple[list[Ad], dict[int, int], dict[str, Any]]:
    """Some ads, what a viewer has seen of them, and what is asked."""
    ads = [
        make(
            number,
            (
                chance.randint(1, 6),
                chance.choice(["impression", "view", "click", "click"]),
                chance.random() < 0.3,
                chance.random() < 0.3,
                chance.random() < 0.3,
            ),
        )
        for number in range(1, chance.randint(1, 4 * SHELF_ADS))
    ]
    seen = {chance.randint(1, len(ads) + 1): chance.randint(1, 6) for _ in range(chance.randint(0, 12))}
    context = Context(country=chance.choice([None, "DE", "ID"]), age=chance.choice([None, 12, 30]))
    floor_micros = chance.choice([0, 1_500_000, 4_000_000, 10**12])
    return (
        ads,
        seen,
        {"personalised": chance.random() < 0.7, "floor_micros": floor_micros, "context": context},
    )


def columns(planned: Plan) -> list[tuple[int, float]]:
    ranked = planned.ranked
    return [(ad.ad.id, value) for ad, value in zip(ranked.ads, ranked.values_micros, strict=True)]


def past_of(seen: Mapping[int, int]) -> Past:
    return Past(
        {campaign_key(number): count for number, count in seen.items()} | {ALL: sum(seen.values())}, None
    )


def crossing_model() -> Model:
    """Each campaign means something else to every kind of viewer."""
    weights = np.random.default_rng(7).normal(0, 0.5, BUCKETS)
    return Model("crossing", weights, -3.0)


def a_shelf_is_the_beginning(rates: Any) -> None:
    for drawn in range(200):
        ads, seen, told = drawn_market(Random(drawn))
        view, ask = make_view(ads, rates=rates), make_ask(**told)
        for past in (Past({}, None), past_of(seen)):  # the second time the shelf is there already
            quick = plan(ask, view, past, 1_000, NOW_MS, drawn, quick=True)
            whole = plan(ask, view, past, 1_000, NOW_MS, drawn)
            assert columns(quick) == columns(whole)[: len(columns(quick))]
            assert quick.no_fill == whole.no_fill
            if quick.ranked.whole:
                assert len(columns(quick)) == len(columns(whole))


@pytest.fixture(autouse=True)
def little_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelves, "_AT_ONCE", 2)


@pytest.mark.parametrize("rates", [WearingRates(0.7), WearingRates(1.3), crossing_model()])
def test_a_shelf_is_the_beginning_of_the_whole_order(rates: Any) -> None:
    a_shelf_is_the_beginning(rates)


def test_a_search_that_ends_too_early_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = WearingRates()
    bound = rates.bound
    monkeypatch.setattr(rates, "bound", lambda prepared, rows: (bound(prepared, rows)[0], lambda _: 0.5))
    with pytest.raises(AssertionError):
        a_shelf_is_the_beginning(rates)


@pytest.fixture
def small_shelves(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that most end among many that tie, some of them too many to be kept."""
    monkeypatch.setattr(shelves, "SHELF_ADS", 3)
    monkeypatch.setattr(shelves, "SHELF_ADS_MAX", 6)
    monkeypatch.setattr(shelves, "ROWS_BEHIND_MAX", 12)


@pytest.mark.usefixtures("small_shelves")
@pytest.mark.parametrize("rates", [WearingRates(0.7), ToldRates()])
def test_a_shelf_that_ends_among_many_that_tie_draws_some_of_them(rates: Any) -> None:
    a_shelf_is_the_beginning(rates)


@pytest.mark.usefixtures("small_shelves")
def test_drawing_always_the_same_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Behind.drawn
    monkeypatch.setattr(Behind, "drawn", lambda self, surface, _seed: whole(self, surface, 1))
    with pytest.raises(AssertionError):
        a_shelf_is_the_beginning(ToldRates())


@pytest.mark.parametrize(("tie", "shown"), [(SHELF_ADS_MAX, SHELF_ADS_MAX), (SHELF_ADS_MAX + 1, SHELF_ADS)])
@pytest.mark.parametrize("floor_micros", [0, 1])
def test_all_may_tie_for_the_first_place(tie: int, shown: int, floor_micros: int) -> None:
    ads = [make_ad(number) for number in range(1, tie + 1)]
    ask = make_ask(floor_micros=floor_micros)
    planned = plan(ask, make_view(ads), Past({}, None), 1_000, NOW_MS, 7, quick=True)
    assert (planned.no_fill, len(planned.ranked.ads)) == (None, shown)


@pytest.mark.parametrize("floor_micros", [0, 1])
def test_where_too_many_tie_for_the_first_place_all_are_looked_at(floor_micros: int) -> None:
    view = make_view([make_ad(number) for number in range(1, ROWS_BEHIND_MAX + 2)])
    quick, whole = (
        plan(make_ask(floor_micros=floor_micros), view, Past({}, None), 100, NOW_MS, 7, quick=quick)
        for quick in (True, False)
    )
    assert columns(quick) == columns(whole)
    assert len(columns(quick)) == 100


def test_a_shelf_that_forgets_what_a_viewer_has_seen_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Shelf.for_viewer
    monkeypatch.setattr(
        Shelf,
        "for_viewer",
        lambda self, surface, rates, _seen, floor_micros, seed: whole(
            self, surface, rates, {}, floor_micros, seed
        ),
    )
    with pytest.raises(AssertionError):
        a_shelf_is_the_beginning(WearingRates())


def test_a_shelf_is_ready_for_all_of_a_kind() -> None:
    rates = WearingRates()
    view = make_view([make_ad(number) for number in range(1, 50)], rates=rates)
    for viewer in range(20):
        plan(make_ask(f"u-{viewer}"), view, Past({}, None), 100, NOW_MS, viewer, quick=True)
    assert view.shelves["status"]._shelf.cache_info().misses == 1


def test_a_surface_has_a_floor_for_each_country() -> None:
    surface = Surface(floor_micros=4_000_000, floors_micros={"DE": 6_000_000})
    view = make_view([make_ad(1)], surface=surface)
    reasons = [
        plan(make_ask(context=Context(country=country)), view, Past({}, None), 9, NOW_MS, 1).no_fill
        for country in (None, "ID", "DE")
    ]
    assert reasons == [None, None, NoFill.BELOW_FLOOR], "its bid is 5 for 1,000"
