"""The order of the matched ads by what an impression of each is worth."""

from collections.abc import Mapping, Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from adserve.domain.facts import EXPOSURES_UNKNOWN, ViewerFacts
from adserve.selection.compiled import CompiledAd, CompiledSurface, Numbers, Rates
from adserve.selection.index import Rows
from adserve.selection.pricing import Contender

EVENT_RATE_MIN = 1e-6
"""No prediction is taken to be less, nor one that is no number: a price per event divides by it."""

_GOLDEN = 0x9E3779B97F4A7C15
_MIX = 0xBF58476D1CE4E5B9
_SHIFT = 31
_64_BITS = 0xFFFFFFFFFFFFFFFF


class Ranked(Struct, frozen=True, gc=False):
    """Ads from best to worst as columns, all of them when it is `whole`. A click rate is 0 where none was needed: clicks
    of that ad are not paid."""

    ads: Sequence[CompiledAd] = ()
    values_micros: Sequence[float] = ()
    click_rates: Sequence[float] = ()
    whole: bool = True

    def contender(self, place: int) -> Contender:
        return Contender(self.ads[place], self.values_micros[place], self.click_rates[place])


def rank(
    surface: CompiledSurface, rows: Rows, click_rates: Numbers, floor_micros: int, most: int, seed: int
) -> Ranked:
    """The `most` best rows: guaranteed before auction, then by expected value, ties broken by `seed` and ad id."""
    values = values_of(surface, rows, click_rates)
    kept = np.flatnonzero(values >= floor_micros)
    if len(kept) < len(rows):
        rows, values, click_rates = rows.take(kept), values.take(kept), click_rates.take(kept)
    pool = _pool(_lifted(surface, rows, values), most)
    rows, values, click_rates = rows.take(pool), values.take(pool), click_rates.take(pool)
    lots = chances(surface.ad_ids.take(rows), seed)
    order = np.lexsort((lots, -values, -_lifted(surface, rows, values)))[:most]
    return Ranked(
        surface.ads.take(rows.take(order)).tolist(),
        values.take(order).tolist(),
        click_rates.take(order).tolist(),
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


def values_of(surface: CompiledSurface, rows: Rows, click_rates: Numbers) -> Numbers:
    """In micros for 1,000 impressions."""
    values: Numbers = surface.fixed_values.take(rows) + surface.click_values.take(rows) * click_rates
    return values


def value_of(ad: CompiledAd, click_rate: float, quality: float) -> float:
    """The same of one ad; `quality` is what people who hide it leave of its bid."""
    return ad.bid_micros * 1_000.0 * quality * (click_rate if ad.event_rate is None else ad.event_rate)


def _lifted(surface: CompiledSurface, rows: Rows, values: Numbers) -> Numbers:
    return values if surface.lifts is None else values + surface.lifts.take(rows)


def _pool(lifted: Numbers, most: int) -> NDArray[np.intp]:
    """The positions of the `most` greatest and of all that tie with the last of these."""
    if len(lifted) <= most:
        return np.arange(len(lifted))
    return np.flatnonzero(lifted >= np.partition(lifted, len(lifted) - most)[len(lifted) - most])


def chance(ad_id: int, seed: int) -> int:
    """A number for each ad that only the seed and the id decide (mixed twice, by constants of splitmix64)."""
    mixed = (ad_id ^ seed & _64_BITS) * _GOLDEN & _64_BITS
    mixed = (mixed ^ mixed >> _SHIFT) * _MIX & _64_BITS
    return mixed ^ mixed >> _SHIFT


def chances(ad_ids: NDArray[np.uint64], seed: int) -> NDArray[np.uint64]:
    """`chance` of each."""
    mixed = (ad_ids ^ np.uint64(seed & _64_BITS)) * np.uint64(_GOLDEN)
    mixed = (mixed ^ (mixed >> np.uint64(_SHIFT))) * np.uint64(_MIX)
    return mixed ^ (mixed >> np.uint64(_SHIFT))
