"""The order of the matched ads by what an impression of each is worth."""

from collections.abc import Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from adserve.selection.index import Rows
from adserve.selection.pricing import Contender
from adserve.selection.state import CompiledAd, CompiledSurface, Numbers

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX = np.uint64(0xBF58476D1CE4E5B9)
_SHIFT = np.uint64(31)


class Ranked(Struct, frozen=True, gc=False):
    """Ads from best to worst as columns. `below_floor` counts those that were worth too little."""

    ads: Sequence[CompiledAd] = ()
    values_micros: Sequence[float] = ()
    click_rates: Sequence[float] = ()
    below_floor: int = 0

    def contender(self, place: int) -> Contender:
        return Contender(self.ads[place], self.values_micros[place], self.click_rates[place])


def rank(
    surface: CompiledSurface, rows: Rows, click_rates: Numbers, floor_micros: int, most: int, seed: int
) -> Ranked:
    """The `most` best rows: guaranteed before auction, then by expected value, ties broken by `seed` and ad id."""
    values = surface.fixed_values.take(rows) + surface.click_values.take(rows) * click_rates
    matched = len(rows)
    kept = np.flatnonzero(values >= floor_micros)
    if len(kept) < matched:
        rows, values, click_rates = rows.take(kept), values.take(kept), click_rates.take(kept)
    order = _best(surface, rows, values, most, seed)
    return Ranked(
        surface.ads.take(rows.take(order)).tolist(),
        values.take(order).tolist(),
        click_rates.take(order).tolist(),
        matched - len(kept),
    )


def _best(surface: CompiledSurface, rows: Rows, values: Numbers, most: int, seed: int) -> NDArray[np.intp]:
    """Positions in `rows`, best first. A row that ties with the last one kept is weighed before any is cut."""
    lifted = values if surface.lifts is None else values + surface.lifts.take(rows)
    if len(rows) <= most:
        return _in_order(surface, rows, values, lifted, seed)
    threshold = np.partition(lifted, len(rows) - most)[len(rows) - most]
    pool = np.flatnonzero(lifted >= threshold)
    order = _in_order(surface, rows.take(pool), values.take(pool), lifted.take(pool), seed)
    return pool.take(order[:most])


def _in_order(
    surface: CompiledSurface, rows: Rows, values: Numbers, lifted: Numbers, seed: int
) -> NDArray[np.intp]:
    chance = _chance(surface.ad_ids.take(rows), seed)
    return np.lexsort((chance, -values) if surface.lifts is None else (chance, -values, -lifted))


def _chance(ad_ids: NDArray[np.uint64], seed: int) -> NDArray[np.uint64]:
    """A number for each ad that only the seed and the id decide (splitmix64's finaliser)."""
    mixed = (ad_ids ^ np.uint64(seed & 0xFFFFFFFFFFFFFFFF)) * _GOLDEN
    mixed = (mixed ^ (mixed >> _SHIFT)) * _MIX
    return mixed ^ (mixed >> _SHIFT)
