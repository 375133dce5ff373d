"""The order of the matched ads by what an impression of each is worth."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from adserve.selection.index import Rows
from adserve.selection.state import CompiledSurface, Numbers

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX = np.uint64(0xBF58476D1CE4E5B9)
_SHIFT = np.uint64(31)


class Ranked(NamedTuple):
    """Rows from best to worst, with the value of 1,000 impressions (micros) and billable events per impression."""

    rows: Rows
    values_micros: Numbers
    event_rates: Numbers
    click_rates: Numbers
    below_floor: int


def rank(
    surface: CompiledSurface, rows: Rows, click_rates: Numbers, floor_micros: int, most: int, seed: int
) -> Ranked:
    """The `most` best rows: guaranteed before auction, then by expected value, ties broken by `seed` and ad id."""
    event_rates = np.where(surface.paid_by_click[rows], click_rates, surface.fixed_rates[rows])
    values = surface.event_bids[rows] * event_rates * 1_000.0
    kept = np.flatnonzero(values >= floor_micros)
    below_floor = len(rows) - len(kept)
    order = _best(surface, rows[kept], values[kept], most, seed)
    chosen = kept[order]
    return Ranked(rows[chosen], values[chosen], event_rates[chosen], click_rates[chosen], below_floor)


def _best(surface: CompiledSurface, rows: Rows, values: Numbers, most: int, seed: int) -> NDArray[np.intp]:
    """Positions in `rows`, best first. A row that ties with the last one kept is weighed before any is cut."""
    tiers = surface.tiers[rows]
    pool = np.arange(len(rows))
    if len(rows) > most and not surface.has_guaranteed:
        threshold = np.partition(values, len(values) - most)[len(values) - most]
        pool = np.flatnonzero(values >= threshold)
    order = np.lexsort((_chance(surface.ad_ids[rows[pool]], seed), -values[pool], tiers[pool]))
    return pool[order[:most]]


def _chance(ad_ids: NDArray[np.uint64], seed: int) -> NDArray[np.uint64]:
    """A number for each ad that only the seed and the id decide (splitmix64's finaliser)."""
    mixed = (ad_ids ^ np.uint64(seed & 0xFFFFFFFFFFFFFFFF)) * _GOLDEN
    mixed = (mixed ^ (mixed >> _SHIFT)) * _MIX
    return mixed ^ (mixed >> _SHIFT)
