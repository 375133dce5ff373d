"""The best ads for each kind of viewer, kept at hand.

Few viewers are alone of their kind, and each comes back: what is best for a kind is found once and stays on a shelf. What one
viewer has seen, the floor and the ties are for each decision to look at.

A shelf is filled without a look at all that match. The ads of a cell lie in the order of what they are worth at the most;
where that is less than what was found already, the search is over (the threshold algorithm: Fagin, Lotem, Naor, 2003).
"""

from array import array
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from msgspec import Struct

from adserve.domain.facts import ViewerFacts
from adserve.selection.compiled import CompiledSurface, Numbers, Rates
from adserve.selection.index import Cell, CellMemory, Mask, Rows
from adserve.selection.ranking import EVENT_RATE_MIN, Ranked, chance, chances, predicted, values_of

SHELF_ADS = 32
SHELF_ADS_MAX = 2 * SHELF_ADS
"""A shelf that would end among ads which tie holds all of these. Where they are more, they lie behind it as rows."""
ROWS_BEHIND_MAX = 1_024
"""4 kB, as each shelf has its own. With more, all that match are ranked for each decision."""
SHELVES_MAX = 20_480
"""Of a surface."""

_AT_ONCE = 256
"""So many ads of a tier are looked at first, of those of either price; where that is too few, `_MORE` times as many, and so on."""
_MORE = 4
_ROUNDED = 1 + 1e-9
"""What is worth less by no more than the rounding of floats is not worth less."""
_NOTHING_LEFT = -1.0


class Behind(Struct, frozen=True, gc=False):
    """More ads of one worth than a shelf holds, of which each decision draws some. No click rates are told where nobody
    pays for clicks."""

    rows: Rows
    value: float
    click_rates: Numbers

    def drawn(self, surface: CompiledSurface, seed: int) -> Ranked:
        """The first of them in the order of the lots."""
        lots = chances(surface.ad_ids.take(self.rows), seed)
        first = np.argpartition(lots, SHELF_ADS)[:SHELF_ADS]
        order = first[np.argsort(lots[first])]
        return Ranked(
            surface.ads.take(self.rows.take(order)).tolist(),
            [self.value] * SHELF_ADS,
            self.click_rates.take(order).tolist() if len(self.click_rates) else [0.0] * SHELF_ADS,
            whole=False,
        )


class Shelf(Struct, frozen=True, gc=False):
    """The best ads for viewers like `viewer` who have not seen any of them; `rows` are theirs. Clicks are paid at the
    places in `paid`; each pair of `ties` is a run of ads of one worth."""

    viewer: ViewerFacts
    rows: Rows
    ranked: Ranked
    paid: bytes
    ties: tuple[tuple[int, int], ...]
    least_micros: float
    behind: Behind | None

    def for_viewer(
        self, surface: CompiledSurface, rates: Rates, seen: Mapping[str, int], floor_micros: int, seed: int
    ) -> Ranked | None:
        """The beginning of what `rank` answers, or None where only `rank` can tell."""
        ranked, behind = self.ranked, self.behind
        ads = ranked.ads
        worn = [place for place in self.paid if ads[place].campaign_key in seen] if seen else ()
        if seen and not rates.wears_out:
            return None
        if floor_micros <= self.least_micros and not worn:
            drawn = self._drawn(seed) if self.ties else ranked
            if behind is not None and floor_micros <= behind.value and not (seen and len(behind.click_rates)):
                return _joined(drawn, behind.drawn(surface, seed))
            if ads or ranked.whole:
                return drawn
        if not (ads or ranked.whole):
            return None
        values, click_rates = self._worn(surface, rates, seen, worn)
        # What has fallen behind the last ad here may have fallen behind one that is not here.
        last = (False, -1.0) if ranked.whole else (ads[-1].guaranteed, ranked.values_micros[-1])
        keys = sorted(
            (not ad.guaranteed, -value, chance(ad.ad.id, seed), place)
            for place, (ad, value) in enumerate(zip(ads, values, strict=True))
            if value >= floor_micros and (ad.guaranteed, value) >= last
        )
        order = [key[-1] for key in keys]
        if not order and not ranked.whole:
            return None
        return _in_order(ranked, order, values, click_rates)

    def _drawn(self, seed: int) -> Ranked:
        """With lots drawn among ads of one worth."""
        ranked = self.ranked
        order = list(range(len(ranked.ads)))
        for start, end in self.ties:
            order[start:end] = sorted(
                order[start:end], key=lambda place: chance(ranked.ads[place].ad.id, seed)
            )
        return _in_order(ranked, order, ranked.values_micros, ranked.click_rates)

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
            places, values_of(surface, rows, rates_now).tolist(), rates_now.tolist(), strict=True
        ):
            values[place], click_rates[place] = value, click_rate
        return values, click_rates


def _in_order(
    ranked: Ranked, order: Sequence[int], values: Sequence[float], click_rates: Sequence[float]
) -> Ranked:
    return Ranked(
        [ranked.ads[place] for place in order],
        [values[place] for place in order],
        [click_rates[place] for place in order],
        ranked.whole,
    )


def _joined(first: Ranked, then: Ranked) -> Ranked:
    return Ranked(
        [*first.ads, *then.ads],
        [*first.values_micros, *then.values_micros],
        [*first.click_rates, *then.click_rates],
        then.whole,
    )


class Shelves:
    """The shelves of one surface and one catalogue; the longest unused goes when there are too many."""

    def __init__(self, surface: CompiledSurface, rates: Rates) -> None:
        self._live = surface.index.live
        self._shelf = lru_cache(SHELVES_MAX)(partial(_shelf, surface, rates, CellMemory()))

    def of(self, viewer: ViewerFacts, now_ms: int) -> Shelf:
        return self._shelf(viewer, self._live(now_ms))


class _Tier(NamedTuple):
    """The ads of a cell that are guaranteed, or the others, the best first: `fixed` are worth the same to every viewer,
    `paid` are paid by the click and worth their `ceilings` times the viewer's `factor` at the most, or the `least`."""

    fixed: Rows
    values: Numbers
    paid: Rows
    ceilings: Numbers
    factor: Callable[[ViewerFacts], float]
    least: float


class _Found(NamedTuple):
    """Rows that match; `whole` when there are no others."""

    rows: Rows
    values: Numbers
    click_rates: Numbers
    whole: bool

    def then(self, other: "_Found") -> "_Found":
        if not len(self.rows):
            return other
        return _Found(
            np.concatenate((self.rows, other.rows)),
            np.concatenate((self.values, other.values)),
            np.concatenate((self.click_rates, other.click_rates)),
            other.whole,
        )


_NOTHING = _Found(np.zeros(0, np.int32), np.zeros(0), np.zeros(0), True)


def _shelf(
    surface: CompiledSurface,
    rates: Rates,
    tiers: CellMemory[tuple[_Tier, ...]],
    viewer: ViewerFacts,
    now_ms: int,
) -> Shelf:
    index = surface.index
    cell, masks = index.cell(viewer, now_ms), index.masks(viewer)
    found = _NOTHING
    tiers_at: list[int] = []
    for tier in tiers.of(cell, partial(_tiers, surface, rates)):
        if len(found.rows) >= SHELF_ADS:
            found = found._replace(whole=False)
            break
        tiers_at.append(len(found.rows))
        found = found.then(_best(surface, rates, tier, viewer, masks, SHELF_ADS - len(found.rows)))
    return _laid(surface, viewer, found, [*tiers_at, len(found.rows)])


def _laid(surface: CompiledSurface, viewer: ViewerFacts, found: _Found, tiers_at: Sequence[int]) -> Shelf:
    """No run of ads that tie is broken by the end of a shelf. `tiers_at` is where tiers begin, and the end of what was found."""
    values = found.values[: SHELF_ADS_MAX + 1].tolist()
    changes = [place for place in range(1, len(values)) if values[place] != values[place - 1]]
    starts = sorted({*(min(place, len(values)) for place in tiers_at), *changes})
    kept = next((start for start in starts if start >= SHELF_ADS), starts[-1])
    behind = None
    if kept > SHELF_ADS_MAX:
        kept = max(start for start in starts if start < SHELF_ADS)
        behind = _behind(found, kept, next(place for place in tiers_at if place > kept))
    rows = found.rows[:kept].copy()
    ads = surface.ads.take(rows).tolist()
    whole = found.whole and kept == len(found.rows)
    return Shelf(
        viewer,
        rows,
        Ranked(ads, array("d", values[:kept]), array("d", found.click_rates[:kept].tolist()), whole),
        bytes([place for place, ad in enumerate(ads) if ad.event_rate is None]),
        tuple([(start, end) for start, end in pairwise(starts) if end - start > 1 and end <= kept]),
        min(values[:kept], default=behind.value if behind else 0.0),
        behind,
    )


def _behind(found: _Found, begin: int, tier_end: int) -> Behind | None:
    """The run of ads that tie which begins there, unless it is too long to be kept."""
    value = found.values[begin]
    end = begin + int(np.count_nonzero(found.values[begin:tier_end] == value))
    if end - begin > ROWS_BEHIND_MAX:
        return None
    click_rates = found.click_rates[begin : end if found.click_rates[begin:end].any() else begin].copy()
    return Behind(found.rows[begin:end].copy(), float(value), click_rates)


def _best(
    surface: CompiledSurface,
    rates: Rates,
    tier: _Tier,
    viewer: ViewerFacts,
    masks: Sequence[Mask],
    wanted: int,
) -> _Found:
    """At least so many of a tier, where as many match: all that are worth more than what was not looked at."""
    seen: Mapping[str, int] | None = None if viewer.seen is None else {}
    factor = tier.factor(viewer) if len(tier.paid) else 0.0
    looked_at = _AT_ONCE
    while True:
        fixed = _matching(tier.fixed[:looked_at], masks)
        paid = _matching(tier.paid[:looked_at], masks)
        rows = np.concatenate((fixed, paid))
        click_rates = np.zeros(len(rows))
        if len(paid):
            click_rates[len(fixed) :] = predicted(surface, rates, paid, viewer, seen)
        values = values_of(surface, rows, click_rates)
        left = _NOTHING_LEFT
        if looked_at < len(tier.fixed):
            left = tier.values[looked_at]
        if looked_at < len(tier.paid):
            left = max(left, tier.ceilings[looked_at] * factor, tier.least)
        better = np.count_nonzero(values > left)
        if left == _NOTHING_LEFT or better >= wanted:
            break
        looked_at *= _MORE
    order = np.argsort(-values, kind="stable")[:better]
    return _Found(rows.take(order), values.take(order), click_rates.take(order), left == _NOTHING_LEFT)


def _matching(rows: Rows, masks: Sequence[Mask]) -> Rows:
    for mask in masks:
        rows = rows.compress(mask.take(rows))
    return rows


def _tiers(surface: CompiledSurface, rates: Rates, cell: Cell) -> tuple[tuple[_Tier, ...], int]:
    """With the number of rows in them."""
    rows = surface.index.rows_of(cell)
    if surface.lifts is None:
        return (_tier(surface, rates, rows),), len(rows)
    lifted = surface.lifts.take(rows) > 0
    return tuple([_tier(surface, rates, rows.compress(part)) for part in (lifted, ~lifted)]), len(rows)


def _tier(surface: CompiledSurface, rates: Rates, rows: Rows) -> _Tier:
    by_click = surface.click_values.take(rows) > 0
    fixed, paid = rows.compress(~by_click), rows.compress(by_click)
    values, worth = surface.fixed_values.take(fixed), surface.click_values.take(paid)
    most, factor = rates.bound(surface.prepared, paid)
    ceilings = worth * most * _ROUNDED
    by_value, by_ceiling = np.argsort(-values, kind="stable"), np.argsort(-ceilings, kind="stable")
    paid = paid.take(by_ceiling)
    return _Tier(
        fixed.take(by_value),
        values.take(by_value),
        paid,
        ceilings.take(by_ceiling),
        factor,
        worth.max(initial=0.0) * EVENT_RATE_MIN * _ROUNDED,
    )
