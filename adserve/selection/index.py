"""The targeting index of one surface: from what is known of a viewer to the rows of the ads that match.

Each dimension folds together what no campaign tells apart, and keeps for each fold the ads that allow it. What many
viewers have in common makes a cell, which answers from memory until the snapshot changes or a campaign starts or ends;
what is a viewer's own is looked up for the rows of the cell.
"""

from array import array
from bisect import bisect_right
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, Generic, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from adserve.domain.ads import Ad
from adserve.domain.facts import ViewerFacts
from adserve.domain.targeting import Exclusion, Targeting, parse_version
from adserve.selection.splice import Splice

CELLS_ROWS_MAX = 2_000_000
"""Of all cells that are kept."""
MASKS_BYTES_MAX = 16_000_000
"""Of each dimension, where that is enough for one."""

Rows = NDArray[np.int32]
Mask = NDArray[np.bool_]
Cell = tuple[Any, ...]
Part = Callable[[ViewerFacts], Any]
Values = Callable[[Exclusion], Iterable[Hashable]]
_Kept = TypeVar("_Kept")


class CellMemory(Generic[_Kept]):
    """Keeps something of each cell; all of it goes when it is of more than CELLS_ROWS_MAX rows."""

    def __init__(self) -> None:
        self._kept: dict[Cell, _Kept] = {}
        self._rows = 0

    def of(self, cell: Cell, make: Callable[[Cell], tuple[_Kept, int]]) -> _Kept:
        """What is kept of the cell; else what is made of it, which comes with the number of its rows."""
        kept = self._kept.get(cell)
        if kept is None:
            kept, rows = make(cell)
            self._rows += rows + 1
            if self._rows > CELLS_ROWS_MAX:
                self._kept.clear()
                self._rows = rows + 1
            self._kept[cell] = kept
        return kept


class TargetingIndex:
    """Matches viewers to ads. Rows are positions in `ads`; after an index of before, in all that the splice joins."""

    def __init__(self, ads: Sequence[Ad], before: "tuple[TargetingIndex, Splice] | None" = None) -> None:
        targetings = [ad.campaign.targeting for ad in ads]
        custom = {name for part in targetings for name in (*part.custom, *part.exclude.custom)}
        if before is not None:
            custom |= before[0]._custom
        asked = _asked(custom)
        live = _RangeDimension.of([(ad.campaign.starts_at_ms, _last_ms(ad)) for ad in ads], [None] * len(ads))
        dimensions = {name: make(targetings) for name, (_, make) in asked.items()}
        if before is not None:
            index, splice = before
            live = index._live.spliced(live, splice)
            dimensions = {
                name: index._dimension(name).spliced(fresh, splice) for name, fresh in dimensions.items()
            }
        told_apart = {
            name: (part, dimensions[name]) for name, (part, _) in asked.items() if dimensions[name].told_apart
        }
        self._live: _RangeDimension = live
        self._dimensions: Mapping[str, _Dimension] = dimensions
        self._custom: set[str] = {name for name in custom if _CUSTOM + name in told_apart}
        self._broad = tuple([told for name, told in told_apart.items() if name in _BROAD])
        self._personal = tuple([told for name, told in told_apart.items() if name not in _BROAD])
        self._cells: CellMemory[Rows] = CellMemory()

    def live(self, now_ms: int) -> int:
        """The moment of the last start or end of a campaign: until the next one, `match` answers alike."""
        return self._live.least(now_ms)

    def cell(self, facts: ViewerFacts, now_ms: int) -> Cell:
        """What a viewer has in common with many, at a moment, as far as any ad asks about it."""
        return (self.live(now_ms), *[dimension.fold(part(facts)) for part, dimension in self._broad])

    def rows_of(self, cell: Cell) -> Rows:
        """The rows that match what the viewers of a cell have in common, ascending."""
        return self._cells.of(cell, self._match)

    def masks(self, facts: ViewerFacts) -> list[Mask]:
        """The rows that match what is a viewer's own, part by part. Viewers who share a part share the very array."""
        return [dimension.mask(dimension.fold(part(facts))) for part, dimension in self._personal]

    def match(self, facts: ViewerFacts, now_ms: int) -> Rows:
        """The rows of all ads that are live at `now_ms` and whose targeting the viewer satisfies, ascending."""
        rows = self.rows_of(self.cell(facts, now_ms))
        for mask in self.masks(facts):
            rows = rows.compress(mask.take(rows))
        return rows

    def live_rows(self, now_ms: int) -> Rows:
        """The rows of all ads that are live, whomever they want."""
        return self._live.mask(self.live(now_ms)).nonzero()[0].astype(np.int32)

    def _match(self, cell: Cell) -> tuple[Rows, int]:
        live, *folds = cell
        matches = self._live.mask(live).copy()
        for fold, (_, dimension) in zip(folds, self._broad, strict=True):
            matches &= dimension.mask(fold)
        rows = matches.nonzero()[0].astype(np.int32)
        rows.flags.writeable = False  # every viewer of the cell reads this one
        return rows, len(rows)

    def _dimension(self, name: str) -> "_Dimension":
        """Of a custom part that no ad had asked about, that of ads which take everybody."""
        return self._dimensions.get(name) or _SetDimension({}, {}, np.ones(self._live.count, dtype=np.bool_))


class _Dimension(Protocol):
    told_apart: bool
    """Whether any ad asks about it."""

    def fold(self, known: Any) -> Hashable:
        """What of a viewer's part campaigns tell apart."""
        ...

    def mask(self, fold: Any) -> Mask:
        """The ads that allow every viewer of a fold."""
        ...

    def spliced(self, fresh: Any, splice: Splice) -> "_Dimension": ...


class _SetDimension:
    """Values, any of which is enough. An ad that asks for none takes everybody but those whom it excludes."""

    def __init__(
        self, wanted: Mapping[Hashable, Rows], excluded: Mapping[Hashable, Rows], untargeted: Mask
    ) -> None:
        self._wanted = wanted
        self._excluded = excluded
        self._untargeted = untargeted
        self._named = frozenset(wanted) | frozenset(excluded)
        self.told_apart = bool(self._named)
        self._masks: dict[frozenset[Hashable], Mask] = {}

    @classmethod
    def of(cls, targetings: Sequence[Targeting], values: Values) -> Self:
        wanted = _rows_by_value(targetings, values)
        excluded = _rows_by_value([targeting.exclude for targeting in targetings], values)
        return cls(
            wanted, excluded, np.array([not list(values(part)) for part in targetings], dtype=np.bool_)
        )

    def spliced(self, fresh: Self, splice: Splice) -> Self:
        return type(self)(
            splice.rows_by_value(self._wanted, fresh._wanted),
            splice.rows_by_value(self._excluded, fresh._excluded),
            splice.column(self._untargeted, fresh._untargeted),
        )

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


def _rows_by_value(parts: Sequence[Exclusion], values: Values) -> dict[Hashable, Rows]:
    rows: dict[Hashable, array[int]] = {}
    for row, part in enumerate(parts):
        for value in values(part):
            rows.setdefault(value, array("i")).append(row)
    return {value: np.frombuffer(of_value, dtype=np.int32) for value, of_value in rows.items()}


Range = tuple[int | None, int | None] | None
_Ends = tuple[NDArray[np.int64], NDArray[np.int64]]
_LOWEST, _HIGHEST = -(2**62), 2**62


class _RangeDimension:
    """Numbers with both ends included. An unknown number matches only ads that ask for none."""

    def __init__(self, untargeted: Mask, wanted: _Ends, excluded: _Ends) -> None:
        self._untargeted = untargeted
        self._wanted = wanted
        self._excluded = excluded
        self.count = len(untargeted)
        out_low, out_high = (ends.compress(excluded[0] <= excluded[1]) for ends in excluded)
        ends = np.concatenate(([_LOWEST], wanted[0], wanted[1] + 1, out_low, out_high + 1))
        self._steps: list[int] = np.unique(ends).tolist()
        self.told_apart = len(out_low) > 0 or not untargeted.all()
        self._masks: dict[int, Mask] = {}

    @classmethod
    def of(cls, wanted: Sequence[Range], excluded: Sequence[Range]) -> Self:
        untargeted = np.array([ends is None for ends in wanted], dtype=np.bool_)
        return cls(untargeted, _ends(wanted, (_LOWEST, _HIGHEST)), _ends(excluded, (1, 0)))

    def spliced(self, fresh: Self, splice: Splice) -> Self:
        (low, high), (out_low, out_high) = (
            map(splice.column, *ends)
            for ends in ((self._wanted, fresh._wanted), (self._excluded, fresh._excluded))
        )
        return type(self)(
            splice.column(self._untargeted, fresh._untargeted), (low, high), (out_low, out_high)
        )

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
            (low, high), (out_low, out_high) = self._wanted, self._excluded
            mask = (low <= fold) & (fold <= high) & ~((out_low <= fold) & (fold <= out_high))
            self._masks[fold] = mask
        return mask


def _make_room(masks: dict[Any, Mask], mask_bytes: int) -> None:
    if (len(masks) + 1) * mask_bytes > MASKS_BYTES_MAX:
        masks.clear()


def _ends(ranges: Sequence[Range], absent: tuple[int, int]) -> _Ends:
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


def _ranges(of: Callable[[Exclusion], Range]) -> "_Make":
    return lambda targetings: _RangeDimension.of(
        list(map(of, targetings)), [of(targeting.exclude) for targeting in targetings]
    )


def _values(of: Values) -> "_Make":
    return lambda targetings: _SetDimension.of(targetings, of)


def _custom(name: str) -> tuple[Part, "_Make"]:
    return lambda facts: (dict(facts.custom).get(name),), _values(lambda part: part.custom.get(name, ()))


_Make = Callable[[Sequence[Targeting]], _Dimension]

_BROAD: Mapping[str, tuple[Part, _Make]] = {
    "version": (lambda facts: facts.version, _ranges(_version_range)),
    "country": (lambda facts: (facts.country,), _values(lambda part: part.countries)),
    "languages": (lambda facts: facts.languages, _values(lambda part: map(str.lower, part.languages))),
    "platform": (lambda facts: (facts.platform,), _values(lambda part: part.platforms)),
    "weekday": (lambda facts: (facts.weekday,), _values(lambda part: part.weekdays)),
    "hour": (lambda facts: (facts.hour,), _values(lambda part: part.hours)),
}
_PERSONAL: Mapping[str, tuple[Part, _Make]] = {
    "age": (lambda facts: facts.age, _ranges(_age_range)),
    "interests": (lambda facts: facts.interests, _values(lambda part: part.interests)),
}
_CUSTOM = "custom "


def _asked(custom: Iterable[str]) -> dict[str, tuple[Part, _Make]]:
    """By the name of a dimension what it looks at, of a viewer and of targetings."""
    return {**_BROAD, **_PERSONAL, **{_CUSTOM + name: _custom(name) for name in sorted(custom)}}
