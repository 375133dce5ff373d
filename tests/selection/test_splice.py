"""A catalogue that is spliced out of the one before, edit after edit, beside one that is compiled from nothing."""

import asyncio
import gc
import weakref
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import numpy as np
import pytest
from market import EVERYBODY, NOW_MS, ToldRates, make_ad
from msgspec.structs import replace
from test_index import random_ads, viewers_and_their_likes
from test_live_view import Switch
from waiting import PATIENCE_S

from adserve.catalogue.snapshot import Snapshot
from adserve.domain.ads import Ad, Tier
from adserve.domain.ids import AdId
from adserve.domain.surfaces import Surface
from adserve.prediction.features import BUCKETS
from adserve.prediction.model import Model
from adserve.selection.compiled import CompiledSurface, Rates
from adserve.selection.shelves import Shelves
from adserve.selection.splice import Splice
from adserve.selection.state import LiveView

MARKETS = 100
EDITS = 4
MODEL = Model("drawn", np.random.default_rng(0).normal(0.0, 0.1, BUCKETS), -4.0)

Ads = tuple[Ad, ...]
Compile = Callable[[Ads, dict[AdId, float], CompiledSurface | None], CompiledSurface]


def spliced(ads: Ads, qualities: dict[AdId, float], earlier: CompiledSurface | None) -> CompiledSurface:
    return CompiledSurface(Surface(), ads, MODEL, qualities, earlier)


def edited(chance: Random, ads: Ads) -> Ads:
    """Some ads are gone, some have changed, some are new; rarely nothing is."""
    if chance.random() < 0.1:
        return ads
    kept = {ad.id: ad for ad in ads if chance.random() < 0.8}
    for ad in random_ads(chance):
        if chance.random() < 0.6:
            number = AdId(chance.randrange(20))
            campaign = replace(
                ad.campaign,
                currency=chance.choice(("USD", "USD", "USD", "EUR")),
                bid_micros=chance.randrange(1, 9) * 1_000_000,
                billable=chance.choice(("impression", "view", "click")),
                tier=chance.choice(tuple(Tier)),
            )
            kept[number] = replace(ad, id=number, campaign=campaign)
    return tuple(kept[number] for number in sorted(kept))


def columns(surface: CompiledSurface) -> list[Any]:
    lifts = None if surface.lifts is None else surface.lifts.tolist()
    told = [surface.campaign_keys, surface.ad_ids, surface.fixed_values, surface.click_values]
    return [
        surface.ads.tolist(),
        *[column.tolist() for column in (*told, *surface.prepared)],
        lifts,
        surface.index.live(NOW_MS),
        sorted(surface.index._custom),
    ]


def agrees(compiled: Compile) -> bool:
    """Whether after every edit all columns are, and every viewer meets, what they would be and meet without an earlier
    catalogue."""
    for seed in range(MARKETS):
        chance = Random(seed)
        ads: Ads = ()
        surface: CompiledSurface | None = None
        for _ in range(EDITS):
            ads = edited(chance, ads)
            qualities = {ad.id: chance.choice((0.25, 1.0)) for ad in ads if chance.random() < 0.3}
            surface = compiled(ads, qualities, surface)
            anew = CompiledSurface(Surface(), ads, MODEL, qualities)
            if columns(surface) != columns(anew):
                return False
            for viewer, now_ms in viewers_and_their_likes(chance):
                matches = [told.index.match(viewer, now_ms).tolist() for told in (surface, anew)]
                if matches[0] != matches[1]:
                    return False
    return True


def test_a_spliced_catalogue_is_the_one_that_is_compiled_from_nothing() -> None:
    assert agrees(spliced)


def test_control_changes_that_are_not_looked_at_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Careless(Splice):
        """Takes an ad for the one of before that had its id."""

        def __init__(self, before: Sequence[Ad], now: Sequence[Ad]) -> None:
            known = {ad.id: ad for ad in before}
            super().__init__(before, [known.get(ad.id, ad) for ad in now])

    monkeypatch.setattr("adserve.selection.compiled.Splice", Careless)
    assert not agrees(spliced)


def test_control_rows_that_are_not_moved_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Unmoved(Splice):
        def _rows(self, before: Any, fresh: Any) -> Any:
            rows = np.concatenate((before, fresh + self._first_fresh))
            return rows.compress(rows < len(self._source))

    monkeypatch.setattr("adserve.selection.compiled.Splice", Unmoved)
    assert not agrees(spliced)


def test_what_has_not_changed_is_the_very_same() -> None:
    ads = (make_ad(1), make_ad(2))
    first = spliced(ads, {}, None)
    second = spliced((*ads, make_ad(3)), {}, first)
    assert [second.ads[row] is first.ads[row] for row in range(2)] == [True, True]
    third = spliced((*ads, make_ad(3)), {}, second)
    same = CompiledSurface(Surface(), second._given, MODEL, {AdId(1): 0.5}, second)
    assert same.index is second.index
    assert same.fixed_values[0] == third.fixed_values[0] / 2


async def test_rollouts_alone_leave_surfaces_and_shelves_as_they_are() -> None:
    live = LiveView({"status": Surface()}, ToldRates())
    known = Snapshot(1, (make_ad(1),), {"status": EVERYBODY})
    await live.publish(known, Switch(1), NOW_MS)
    before = live.current()
    await live.publish(replace(known, version=2, rollouts={}), Switch(1), NOW_MS)
    after = live.current()
    assert after.snapshot.rollouts == {}
    assert (after.surfaces, after.shelves) == (before.surfaces, before.shelves)
    assert after.shelves["status"] is before.shelves["status"]


async def replaced_goes(within_s: float) -> bool:
    """Whether nothing keeps a catalogue that was replaced, without any help of the garbage collector: it looks rarely in a
    process that serves."""
    live = LiveView({"status": Surface()}, MODEL)
    known = Snapshot(1, (make_ad(1), make_ad(2)), {"status": EVERYBODY})
    gc.disable()
    try:
        await live.publish(known, Switch(1), NOW_MS)
        surface, shelves = live.current().surfaces["status"], live.current().shelves["status"]
        shelves.of(next(viewers_and_their_likes(Random(1)))[0], NOW_MS)
        kept = [weakref.ref(surface), weakref.ref(shelves), weakref.ref(surface.index)]
        del surface, shelves
        await live.publish(replace(known, version=2, ads=(known.ads[0], make_ad(2))), Switch(1), NOW_MS)
        for _ in range(50):
            if not any(alive() for alive in kept):
                return True
            await asyncio.sleep(
                within_s / 50
            )  # the thread that compiled lets go of its arguments a little later
    finally:
        gc.enable()
    return False


async def test_what_is_replaced_goes_by_itself() -> None:
    assert await replaced_goes(within_s=PATIENCE_S)


async def test_control_a_cycle_that_keeps_what_is_replaced_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Cyclic(Shelves):
        def __init__(self, surface: CompiledSurface, rates: Rates) -> None:
            super().__init__(surface, rates)
            self.itself = self

    monkeypatch.setattr("adserve.selection.state.Shelves", Cyclic)
    assert not await replaced_goes(within_s=0.2)
