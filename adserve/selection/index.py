"""The targeting index of one surface: from what is known of a viewer to the rows of the ads that match.

Each dimension folds together what no campaign tells apart, and keeps for each fold the ads that allow it. A viewer's
folds are its cell: the same cell answers from memory until the snapshot changes or a campaign starts or ends, and a
new one is the conjunction of masks that are there already.
"""

from bisect import bisect_right
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from adserve.domain.ads import Ad
from adserve.domain.facts import ViewerFacts
from adserve.domain.targeting import Exclusion, parse_version

CELLS_MAX = 4_096
MASKS_MAX = 1_024
"""Of each dimension."""

Rows = NDArray[np.int32]
Mask = NDArray[np.bool_]
Cell = tuple[Hashable, ...]


class TargetingIndex:
    """Matches viewers to ads. Rows are positions in `ads`."""

    def __init__(self, ads: Sequence[Ad]) -> None:
        targetings = [ad.campaign.targeting for ad in ads]
        excludes = [targeting.exclude for targeting in targetings]
        self._custom_names = sorted({name for part in [*targetings, *excludes] for name in part.custom})
        lives = [(ad.campaign.starts_at_ms, _last_ms(ad)) for ad in ads]
        ranges = (
            _RangeDimension(lives, [None] * len(ads)),
            _RangeDimension(list(map(_age_range, targetings)), list(map(_age_range, excludes))),
            _RangeDimension(list(map(_version_range, targetings)), list(map(_version_range, excludes))),
        )
        values_of = (*_VALUES, *map(_custom, self._custom_names))
        sets = [_SetDimension(targetings, excludes, values) for values in values_of]
        self._dimensions: tuple[_Dimension, ...] = (*ranges, *sets)
        self._cells: dict[Cell, Rows] = {}

    def match(self, facts: ViewerFacts, now_ms: int) -> Rows:
        """The rows of all ads that are live at `now_ms` and whose targeting the viewer satisfies, ascending."""
        cell = self._cell(facts, now_ms)
        rows = self._cells.get(cell)
        if rows is None:
            if len(self._cells) >= CELLS_MAX:
                self._cells.clear()
            rows = self._cells[cell] = self._search(cell)
            rows.flags.writeable = False  # every viewer of the cell reads this one
        return rows

    def _cell(self, facts: ViewerFacts, now_ms: int) -> Cell:
        """In the order of the dimensions."""
        custom = dict(facts.custom)
        known = (
            now_ms,
            facts.age,
            facts.version,
            (facts.country,),
            facts.languages,
            (facts.platform,),
            facts.interests,
            (facts.weekday,),
            (facts.hour,),
            *[(custom.get(name),) for name in self._custom_names],
        )
        return tuple([dimension.fold(part) for dimension, part in zip(self._dimensions, known, strict=True)])

    def _search(self, cell: Cell) -> Rows:
        first, *others = [
            dimension.mask(fold) for dimension, fold in zip(self._dimensions, cell, strict=True)
        ]
        matches = first.copy()
        for mask in others:
            matches &= mask
        return matches.nonzero()[0].astype(np.int32)


class _Dimension(Protocol):
    def fold(self, known: Any) -> Hashable:
        """What of a viewer's part campaigns tell apart."""
        ...

    def mask(self, fold: Any) -> Mask:
        """The ads that allow every viewer of a fold."""
        ...


_VALUES: tuple[Callable[[Exclusion], Iterable[Hashable]], ...] = (
    lambda part: part.countries,
    lambda part: [language.lower() for language in part.languages],
    lambda part: part.platforms,
    lambda part: part.interests,
    lambda part: part.weekdays,
    lambda part: part.hours,
)


def _custom(name: str) -> Callable[[Exclusion], Iterable[Hashable]]:
    return lambda part: part.custom.get(name, ())


class _SetDimension:
    """Values, any of which is enough. An ad that asks for none takes everybody but those whom it excludes."""

    def __init__(
        self,
        wanted: Sequence[Exclusion],
        excluded: Sequence[Exclusion],
        values: Callable[[Exclusion], Iterable[Hashable]],
    ) -> None:
        self._wanted = _rows_by_value(wanted, values)
        self._excluded = _rows_by_value(excluded, values)
        self._named = frozenset(self._wanted) | frozenset(self._excluded)
        self._untargeted = np.array([not list(values(part)) for part in wanted], dtype=np.bool_)
        self._masks: dict[frozenset[Hashable], Mask] = {}

    def fold(self, known: Iterable[Hashable]) -> frozenset[Hashable]:
        return self._named.intersection(known)

    def mask(self, fold: frozenset[Hashable]) -> Mask:
        mask = self._masks.get(fold)
        if mask is None:
            if len(self._masks) >= MASKS_MAX:
                self._masks.clear()
            mask = self._masks[fold] = self._untargeted.copy()
            for value in fold:
                mask[self._wanted.get(value, [])] = True
            for value in fold:
                mask[self._excluded.get(value, [])] = False
        return mask


def _rows_by_value(
    parts: Sequence[Exclusion], values: Callable[[Exclusion], Iterable[Hashable]]
) -> dict[Hashable, list[int]]:
    rows: dict[Hashable, list[int]] = {}
    for row, part in enumerate(parts):
        for value in values(part):
            rows.setdefault(value, []).append(row)
    return rows


Range = tuple[int | None, int | None] | None
_LOWEST, _HIGHEST = -(2**62), 2**62


class _RangeDimension:
    """Numbers with both ends included. An unknown number matches only ads that ask for none."""

    def __init__(self, wanted: Sequence[Range], excluded: Sequence[Range]) -> None:
        self._untargeted = np.array([ends is None for ends in wanted], dtype=np.bool_)
        self._low, self._high = _ends(wanted, (_LOWEST, _HIGHEST))
        self._out_low, self._out_high = _ends(excluded, (1, 0))
        ends = [*self._low, *(self._high + 1), *self._out_low, *(self._out_high + 1)]
        self._steps = sorted({_LOWEST, *map(int, ends)})
        self._masks: dict[int, Mask] = {}

    def fold(self, known: int | None) -> int | None:
        """The least of the numbers that no ad tells from this one."""
        return None if known is None else self._steps[bisect_right(self._steps, known) - 1]

    def mask(self, fold: int | None) -> Mask:
        if fold is None:
            return self._untargeted
        mask = self._masks.get(fold)
        if mask is None:
            if len(self._masks) >= MASKS_MAX:
                self._masks.clear()
            inside = (self._low <= fold) & (fold <= self._high)
            mask = self._masks[fold] = inside & ~((self._out_low <= fold) & (fold <= self._out_high))
        return mask


def _ends(ranges: Sequence[Range], absent: tuple[int, int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    lows = [absent[0] if ends is None else _LOWEST if ends[0] is None else ends[0] for ends in ranges]
    highs = [absent[1] if ends is None else _HIGHEST if ends[1] is None else ends[1] for ends in ranges]
    return np.array(lows, dtype=np.int64), np.array(highs, dtype=np.int64)


def _last_ms(ad: Ad) -> int | None:
    return None if ad.campaign.ends_at_ms is None else ad.campaign.ends_at_ms - 1


def _age_range(part: Exclusion) -> Range:
    return _range(part.age.min, part.age.max) if part.age else None


def _version_range(part: Exclusion) -> Range:
    if part.app_version is None:
        return None
    low, high = part.app_version.min, part.app_version.max
    return _range(None if low is None else parse_version(low), None if high is None else parse_version(high))


def _range(low: int | None, high: int | None) -> Range:
    """A range without ends is like any empty part: it asks for nothing."""
    return None if low is None and high is None else (low, high)
