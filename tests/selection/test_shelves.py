"""What lies on a shelf is the beginning of the order of all matched ads, whatever one viewer has seen."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from market import NOW_MS, make_ad, make_ask, make_view, per_click

from adserve.domain.ads import Ad, Tier
from adserve.domain.slots import Context, NoFill
from adserve.domain.surfaces import Surface
from adserve.domain.targeting import AgeRange, Targeting
from adserve.limits.counters import Past
from adserve.limits.rules import ALL, campaign_key
from adserve.selection.decide import Plan, plan
from adserve.selection.ranking import SHELF_ADS, Shelf

SEEDS = st.integers(0, 2**128 - 1)


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


ADS = st.lists(
    st.tuples(
        st.integers(1, 6),
        st.sampled_from(["impression", "view", "click", "click"]),
        st.sampled_from([False, False, True]),
        st.booleans(),
        st.booleans(),
    ),
    max_size=3 * SHELF_ADS,
).map(lambda lines: [make(number, told) for number, told in enumerate(lines, start=1)])
SEEN = st.dictionaries(st.integers(1, 3 * SHELF_ADS), st.integers(1, 6), max_size=12)
ASKS = st.fixed_dictionaries(
    {
        "personalised": st.booleans(),
        "floor_micros": st.sampled_from([0, 1_500_000, 4_000_000, 10**12]),
        "context": st.builds(
            Context, country=st.sampled_from([None, "DE", "ID"]), age=st.sampled_from([None, 12, 30])
        ),
    }
)


def columns(planned: Plan) -> list[tuple[int, float]]:
    ranked = planned.ranked
    return [(ad.ad.id, value) for ad, value in zip(ranked.ads, ranked.values_micros, strict=True)]


def past_of(seen: Mapping[int, int]) -> Past:
    return Past(
        {campaign_key(number): count for number, count in seen.items()} | {ALL: sum(seen.values())}, None
    )


def a_shelf_is_the_beginning(factor: float) -> None:
    @given(ads=ADS, seen=SEEN, told=ASKS, seed=SEEDS)
    @settings(derandomize=True, max_examples=150, deadline=None)
    def holds(ads: list[Ad], seen: dict[int, int], told: dict[str, Any], seed: int) -> None:
        view, ask = make_view(ads, rates=WearingRates(factor)), make_ask(**told)
        for past in (Past({}, None), past_of(seen)):  # the second time the shelf is there already
            quick = plan(ask, view, past, 1_000, NOW_MS, seed, quick=True)
            whole = plan(ask, view, past, 1_000, NOW_MS, seed)
            assert columns(quick) == columns(whole)[: len(columns(quick))]
            assert (quick.no_fill, quick.matched) == (whole.no_fill, whole.matched)
            if quick.ranked.whole:
                assert len(columns(quick)) == len(columns(whole))

    holds()


@pytest.mark.parametrize("factor", [0.7, 1.3])
def test_a_shelf_is_the_beginning_of_the_whole_order(factor: float) -> None:
    a_shelf_is_the_beginning(factor)


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
        a_shelf_is_the_beginning(0.7)


def test_a_shelf_is_ready_for_all_of_a_kind() -> None:
    rates = WearingRates()
    view = make_view([make_ad(number) for number in range(1, 100)], rates=rates)
    for viewer in range(20):
        plan(make_ask(f"u-{viewer}"), view, Past({}, None), 100, NOW_MS, viewer, quick=True)
    shelves = view.shelves["status"]
    assert shelves._shelf.cache_info().misses == 1


def test_a_surface_has_a_floor_for_each_country() -> None:
    surface = Surface(floor_micros=4_000_000, floors_micros={"DE": 6_000_000})
    view = make_view([make_ad(1)], surface=surface)
    reasons = [
        plan(make_ask(context=Context(country=country)), view, Past({}, None), 9, NOW_MS, 1).no_fill
        for country in (None, "ID", "DE")
    ]
    assert reasons == [None, None, NoFill.BELOW_FLOOR], "its bid is 5 for 1,000"
