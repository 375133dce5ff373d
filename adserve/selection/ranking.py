"""The order of the matched ads by what an impression of each is worth.

Few viewers are alone of their kind, and each comes back: the best ads for a kind of viewer are ranked once and stay on a
shelf. What one viewer has seen, the floor and the ties are for each decision to look at.
"""

from array import array
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from adserve.domain.facts import EXPOSURES_UNKNOWN, ViewerFacts
from adserve.selection.compiled import CompiledAd, CompiledSurface, Numbers, Rates
from adserve.selection.index import Rows
from adserve.selection.pricing import Contender

SHELF_ADS = 32
"""So many ads lie on a shelf, and more only where the last of them tie."""
SHELVES_MAX = 32_768
"""Of a surface."""

EVENT_RATE_MIN = 1e-6
"""No prediction is taken to be less, nor one that is no number: a price per event divides by it."""

_GOLDEN = 0x9E3779B97F4A7C15
_MIX = 0xBF58476D1CE4E5B9
_SHIFT = 31
_64_BITS = 0xFFFFFFFFFFFFFFFF


class Ranked(Struct, frozen=True, gc=False):
    """Ads from best to worst as columns, all of them when it is `whole`. `below_floor` counts those that were worth too
    little. A click rate is 0 where none was needed: clicks of that ad are not paid."""

    ads: Sequence[CompiledAd] = ()
    values_micros: Sequence[float] = ()
    click_rates: Sequence[float] = ()
    below_floor: int = 0
    whole: bool = True

    def contender(self, place: int) -> Contender:
        return Contender(self.ads[place], self.values_micros[place], self.click_rates[place])


def rank(
    surface: CompiledSurface, rows: Rows, click_rates: Numbers, floor_micros: int, most: int, seed: int
) -> Ranked:
    """The `most` best rows: guaranteed before auction, then by expected value, ties broken by `seed` and ad id."""
    values = _values(surface, rows, click_rates)
    matched = len(rows)
    kept = np.flatnonzero(values >= floor_micros)
    if len(kept) < matched:
        rows, values, click_rates = rows.take(kept), values.take(kept), click_rates.take(kept)
    pool = _pool(_lifted(surface, rows, values), most)
    rows, values, click_rates = rows.take(pool), values.take(pool), click_rates.take(pool)
    chance = _chances(surface.ad_ids.take(rows), seed)
    order = np.lexsort((chance, -values, -_lifted(surface, rows, values)))[:most]
    return Ranked(
        surface.ads.take(rows.take(order)).tolist(),
        values.take(order).tolist(),
        click_rates.take(order).tolist(),
        matched - len(kept),
        len(order) == len(kept),
    )


def predicted(
    surface: CompiledSurface, rates: Rates, rows: Rows, viewer: ViewerFacts, seen: Mapping[str, int] | None
) -> Numbers:
    """The click rate of each row. `seen` counts what the viewer saw by campaign; None is a history that may not be
    used: it tells nothing, which is not the same as none."""
    if seen is None:
        exposures = np.full(len(rows), EXPOSURES_UNKNOWN, dtype=np.int64)
    elif seen:
        campaigns = surface.campaign_keys.take(rows).tolist()
        exposures = np.array([seen.get(campaign, 0) for campaign in campaigns], dtype=np.int64)
    else:
        exposures = np.zeros(len(rows), dtype=np.int64)
    return np.fmax(rates.click(surface.prepared, rows, viewer, exposures), EVENT_RATE_MIN)


class Shelf(Struct, frozen=True, gc=False):
    """The best of the `matched` ads for viewers like `viewer` who have not seen any of them; `rows` are theirs."""

    viewer: ViewerFacts
    matched: int
    rows: Rows
    ranked: Ranked
    plain: bool
    least_micros: float

    def for_viewer(
        self, surface: CompiledSurface, rates: Rates, seen: Mapping[str, int], floor_micros: int, seed: int
    ) -> Ranked | None:
        """The beginning of what `rank` answers, or None where only `rank` can tell."""
        ranked = self.ranked
        worn = [
            place
            for place, ad in enumerate(ranked.ads if seen else ())
            if ad.event_rate is None and ad.campaign_key in seen
        ]
        if seen and not rates.wears_out:
            return None
        if self.plain and not worn and floor_micros <= self.least_micros:
            return ranked
        values, click_rates = self._worn(surface, rates, seen, worn)
        # What has fallen behind the last ad here may have fallen behind one that is not here.
        last = (False, -1.0) if ranked.whole else (ranked.ads[-1].guaranteed, ranked.values_micros[-1])
        keys = [
            (not ad.guaranteed, -value, place)
            for place, (ad, value) in enumerate(zip(ranked.ads, values, strict=True))
            if value >= floor_micros and (ad.guaranteed, value) >= last
        ]
        if len({key[:2] for key in keys}) < len(keys):
            chances = _chances(surface.ad_ids.take(self.rows), seed).tolist()
            keys.sort(key=lambda key: (key[0], key[1], chances[key[2]]))
        else:
            keys.sort()
        order = [place for _, _, place in keys]
        if not order and not ranked.whole:
            return None
        return Ranked(
            [ranked.ads[place] for place in order],
            [values[place] for place in order],
            [click_rates[place] for place in order],
            self.matched - len(order),
            ranked.whole,
        )

    def _worn(
        self, surface: CompiledSurface, rates: Rates, seen: Mapping[str, int], places: Sequence[int]
    ) -> tuple[Sequence[float], Sequence[float]]:
        """Values and click rates, with those at these `places` for a viewer who has seen the campaigns before."""
        if not places:
            return self.ranked.values_micros, self.ranked.click_rates
        values, click_rates = list(self.ranked.values_micros), list(self.ranked.click_rates)
        rows = self.rows.take(places)
        rates_now = predicted(surface, rates, rows, self.viewer, seen)
        for place, value, click_rate in zip(
            places, _values(surface, rows, rates_now).tolist(), rates_now.tolist(), strict=True
        ):
            values[place], click_rates[place] = value, click_rate
        return values, click_rates


class Shelves:
    """The shelves of one surface and one catalogue; the longest unused goes when there are too many."""

    def __init__(self, surface: CompiledSurface, rates: Rates) -> None:
        self._live = surface.index.live
        self._shelf = lru_cache(SHELVES_MAX)(partial(_shelf, surface, rates))

    def of(self, viewer: ViewerFacts, now_ms: int) -> Shelf:
        return self._shelf(viewer, self._live(now_ms))


def _shelf(surface: CompiledSurface, rates: Rates, viewer: ViewerFacts, now_ms: int) -> Shelf:
    rows = surface.index.match(viewer, now_ms)
    click_rates = np.zeros(len(rows))
    paid = np.flatnonzero(surface.click_values.take(rows))
    seen: Mapping[str, int] | None = None if viewer.seen is None else {}
    click_rates[paid] = predicted(surface, rates, rows.take(paid), viewer, seen)
    values = _values(surface, rows, click_rates)
    pool = _pool(_lifted(surface, rows, values), SHELF_ADS)
    matched = len(rows)
    rows, values, click_rates = rows.take(pool), values.take(pool), click_rates.take(pool)
    order = np.lexsort((-values, -_lifted(surface, rows, values)))
    rows, values = rows.take(order), values.take(order)
    ads = surface.ads.take(rows).tolist()
    ranked = Ranked(ads, _packed(values), _packed(click_rates.take(order)), 0, len(rows) == matched)
    plain = len({(ad.guaranteed, value) for ad, value in zip(ads, ranked.values_micros, strict=True)}) == len(
        ads
    )
    return Shelf(viewer, matched, rows, ranked, plain, min(ranked.values_micros, default=0.0))


def _packed(numbers: Numbers) -> "array[float]":
    """A quarter of the memory of a list, and its numbers are as quickly at hand as those of an ndarray are not."""
    return array("d", numbers.tobytes())


def _values(surface: CompiledSurface, rows: Rows, click_rates: Numbers) -> Numbers:
    values: Numbers = surface.fixed_values.take(rows) + surface.click_values.take(rows) * click_rates
    return values


def _lifted(surface: CompiledSurface, rows: Rows, values: Numbers) -> Numbers:
    return values if surface.lifts is None else values + surface.lifts.take(rows)


def _pool(lifted: Numbers, most: int) -> NDArray[np.intp]:
    """The positions of the `most` greatest and of all that tie with the last of these."""
    if len(lifted) <= most:
        return np.arange(len(lifted))
    return np.flatnonzero(lifted >= np.partition(lifted, len(lifted) - most)[len(lifted) - most])


def _chances(ad_ids: NDArray[np.uint64], seed: int) -> NDArray[np.uint64]:
    """A number for each ad that only the seed and the id decide (splitmix64's finaliser)."""
    mixed = (ad_ids ^ np.uint64(seed & _64_BITS)) * np.uint64(_GOLDEN)
    mixed = (mixed ^ (mixed >> np.uint64(_SHIFT))) * np.uint64(_MIX)
    return mixed ^ (mixed >> np.uint64(_SHIFT))
