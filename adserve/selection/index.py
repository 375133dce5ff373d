"""The targeting index of one surface: from what is known of a viewer to the rows of the ads that match.

Each dimension folds together what no campaign tells apart, and keeps for each fold the ads that allow it. What many
viewers have in common makes a cell, which answers from memory until the snapshot changes or a campaign starts or ends;
what is a viewer's own is looked up for the rows of the cell.
"""

from array import array
from bisect import bisect_right
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from adserve.domain.ads import Ad
from adserve.domain.facts import ViewerFacts
from adserve.domain.targeting import Exclusion, parse_version

CELLS_ROWS_MAX = 4_000_000
"""Of all cells that are kept."""
MASKS_BYTES_MAX = 16_000_000
"""Of each dimension, where that is enough for one."""

Rows = NDArray[np.int32]
Mask = NDArray[np.bool_]
Cell = tuple[Any, ...]
Part = Callable[[ViewerFacts], Any]


class TargetingIndex:
    """Matches viewers to ads. Rows are positions in `ads`."""

    def __init__(self, ads: Sequence[Ad]) -> None:
        targetings = [ad.campaign.targeting for ad in ads]
        excludes = [targeting.exclude for targeting in targetings]
        lives = [(ad.campaign.starts_at_ms, _last_ms(ad)) for ad in ads]
        self._live = _RangeDimension(lives, [None] * len(ads))

        def ranges(of: Callable[[Exclusion], Range]) -> _RangeDimension:
            return _RangeDimension(list(map(of, targetings)), list(map(of, excludes)))

        def values(of: Callable[[Exclusion], Iterable[Hashable]]) -> _SetDimension:
            return _SetDimension(targetings, excludes, of)

        custom = sorted({name for part in [*targetings, *excludes] for name in part.custom})
        self._broad = _told_apart(
            (lambda facts: facts.version, ranges(_version_range)),
            (lambda facts: (facts.country,), values(lambda part: part.countries)),
            (lambda facts: facts.languages, values(lambda part: map(str.lower, part.languages))),
            (lambda facts: (facts.platform,), values(lambda part: part.platforms)),
            (lambda facts: (facts.weekday,), values(lambda part: part.weekdays)),
            (lambda facts: (facts.hour,), values(lambda part: part.hours)),
        )
        self._personal = _told_apart(
            (lambda facts: facts.age, ranges(_age_range)),
            (lambda facts: facts.interests, values(lambda part: part.interests)),
            *[(_custom_of(name), values(_custom(name))) for name in custom],
        )
        self._cells: dict[Cell, Rows] = {}
        self._cells_rows = 0

    def live(self, now_ms: int) -> int:
        """The moment of the last start or end of a campaign: until the next one, `match` answers alike."""
        return self._live.least(now_ms)

    def match(self, facts: ViewerFacts, now_ms: int) -> Rows:
        """The rows of all ads that are live at `now_ms` and whose targeting the viewer satisfies, ascending."""
        rows = self._broad_rows(facts, now_ms)
        for part, dimension in self._personal:
            mask = dimension.mask(dimension.fold(part(facts)))
            rows = rows.compress(mask.take(rows))
        return rows

    def live_rows(self, now_ms: int) -> Rows:
        """The rows of all ads that are live, whomever they want."""
        return self._live.mask(self.live(now_ms)).nonzero()[0].astype(np.int32)

    def parts(self, facts: ViewerFacts, now_ms: int) -> tuple[Rows, tuple[Mask, ...]]:
        """What `match` joins: the rows that match what many viewers have in common, and the masks of what is this viewer's
        own. Viewers who share a part share the very array."""
        masks = [dimension.mask(dimension.fold(part(facts))) for part, dimension in self._personal]
        return self._broad_rows(facts, now_ms), tuple(masks)

    def _broad_rows(self, facts: ViewerFacts, now_ms: int) -> Rows:
        """Those that match what many viewers have in common."""
        live = self.live(now_ms)
        cell: Cell = (live, *[dimension.fold(part(facts)) for part, dimension in self._broad])
        rows = self._cells.get(cell)
        if rows is None:
            matches = self._live.mask(live).copy()
            for fold, (_, dimension) in zip(cell[1:], self._broad, strict=True):
                matches &= dimension.mask(fold)
            rows = matches.nonzero()[0].astype(np.int32)
            rows.flags.writeable = False  # every viewer of the cell reads this one
            self._remember(cell, rows)
        return rows

    def _remember(self, cell: Cell, rows: Rows) -> None:
        self._cells_rows += len(rows) + 1
        if self._cells_rows > CELLS_ROWS_MAX:
            self._cells.clear()
            self._cells_rows = len(rows) + 1
        self._cells[cell] = rows


def _told_apart(*dimensions: "tuple[Part, _Dimension]") -> "tuple[tuple[Part, _Dimension], ...]":
    """Those that any ad asks about."""
    return tuple([(part, dimension) for part, dimension in dimensions if dimension.told_apart])


class _Dimension(Protocol):
    told_apart: bool

    def fold(self, known: Any) -> Hashable:
        """What of a viewer's part campaigns tell apart."""
        ...

    def mask(self, fold: Any) -> Mask:
        """The ads that allow every viewer of a fold."""
        ...


def _custom(name: str) -> Callable[[Exclusion], Iterable[Hashable]]:
    return lambda part: part.custom.get(name, ())


def _custom_of(name: str) -> Part:
    return lambda facts: (dict(facts.custom).get(name),)


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
        self.told_apart = bool(self._named)
        self._untargeted = np.array([not list(values(part)) for part in wanted], dtype=np.bool_)
        self._masks: dict[frozenset[Hashable], Mask] = {}

    def fold(self, known: Iterable[Hashable]) -> frozenset[Hashable]:
        return self._named.intersection(known)

    def mask(self, fold: frozenset[Hashable]) -> Mask:
        mask = self._masks.get(fold)
        if mask is None:
            _make_room(self._masks, len(self._untargeted))
            mask = self._masks[fold] = self._untargeted.copy()
            for value in fold & self._wanted.keys():
                mask[self._wanted[value]] = True
            for value in fold & self._excluded.keys():
                mask[self._excluded[value]] = False
        return mask


def _rows_by_value(
    parts: Sequence[Exclusion], values: Callable[[Exclusion], Iterable[Hashable]]
) -> dict[Hashable, Rows]:
    rows: dict[Hashable, array[int]] = {}
    for row, part in enumerate(parts):
        for value in values(part):
            rows.setdefault(value, array("i")).append(row)
    return {value: np.frombuffer(of_value, dtype=np.int32) for value, of_value in rows.items()}


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
        self.told_apart = not all(self._untargeted) or any(ends is not None for ends in excluded)
        self._masks: dict[int, Mask] = {}

    def fold(self, known: int | None) -> int | None:
        return None if known is None else self.least(known)

    def least(self, known: int) -> int:
        """The least of the numbers that no ad tells from this one."""
        return self._steps[bisect_right(self._steps, known) - 1]

    def mask(self, fold: int | None) -> Mask:
        if fold is None:
            return self._untargeted
        mask = self._masks.get(fold)
        if mask is None:
            _make_room(self._masks, len(self._untargeted))
            inside = (self._low <= fold) & (fold <= self._high)
            mask = self._masks[fold] = inside & ~((self._out_low <= fold) & (fold <= self._out_high))
        return mask


def _make_room(masks: dict[Any, Mask], mask_bytes: int) -> None:
    if (len(masks) + 1) * mask_bytes > MASKS_BYTES_MAX:
        masks.clear()


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
