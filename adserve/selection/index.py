"""The targeting index of one surface: from what is known of a viewer to the rows of the ads that match.

Values that no campaign mentions are folded together, so that a viewer's cell is small and its matched rows can be
kept: the same cell answers from memory until the snapshot changes or a campaign starts or ends.
"""

from bisect import bisect_right
from collections.abc import Callable, Hashable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from adserve.domain.ads import Ad
from adserve.domain.facts import ViewerFacts
from adserve.domain.targeting import Exclusion, parse_version

CELLS_MAX = 4_096

Rows = NDArray[np.int32]
Mask = NDArray[np.bool_]
Cell = tuple[Hashable, ...]


class TargetingIndex:
    """Matches viewers to ads. Rows are positions in `ads`."""

    def __init__(self, ads: Sequence[Ad]) -> None:
        self._size = len(ads)
        targetings = [ad.campaign.targeting for ad in ads]
        excludes = [targeting.exclude for targeting in targetings]
        self._custom_names = sorted({name for part in [*targetings, *excludes] for name in part.custom})
        values_of = [*_VALUES, *map(_custom, self._custom_names)]
        self._wanted = [_SetDimension(targetings, values) for values in values_of]
        self._excluded = [_SetDimension(excludes, values) for values in values_of]
        self._age = _RangeDimension(
            [_age_range(part) for part in targetings], [_age_range(part) for part in excludes]
        )
        self._version = _RangeDimension(
            [_version_range(part) for part in targetings], [_version_range(part) for part in excludes]
        )
        self._starts = np.array([ad.campaign.starts_at_ms for ad in ads], dtype=np.int64)
        self._ends = np.array([ad.campaign.ends_at_ms or 2**62 for ad in ads], dtype=np.int64)
        self._boundaries = sorted({*self._starts.tolist(), *self._ends.tolist()})
        self._cells: dict[Cell, Rows] = {}

    def match(self, facts: ViewerFacts, now_ms: int) -> Rows:
        """The rows of all ads that are live at `now_ms` and whose targeting the viewer satisfies, ascending."""
        cell = self._cell(facts, now_ms)
        rows = self._cells.get(cell)
        if rows is None:
            if len(self._cells) >= CELLS_MAX:
                self._cells.clear()
            rows = self._cells[cell] = self._search(facts, now_ms)
            rows.flags.writeable = False  # every viewer of the cell reads this one
        return rows

    def _cell(self, facts: ViewerFacts, now_ms: int) -> Cell:
        return (
            bisect_right(self._boundaries, now_ms),
            *(
                wanted.fold(excluded, values)
                for wanted, excluded, values in zip(
                    self._wanted, self._excluded, self._sets_of(facts), strict=True
                )
            ),
            self._age.fold(facts.age),
            self._version.fold(facts.version),
        )

    def _search(self, facts: ViewerFacts, now_ms: int) -> Rows:
        matches: Mask = (self._starts <= now_ms) & (now_ms < self._ends)
        for wanted, excluded, values in zip(self._wanted, self._excluded, self._sets_of(facts), strict=True):
            matches &= wanted.untargeted_or(values) & ~excluded.any_of(values)
        matches &= self._age.matches(facts.age) & self._version.matches(facts.version)
        return np.flatnonzero(matches).astype(np.int32)

    def _sets_of(self, facts: ViewerFacts) -> tuple[tuple[Hashable, ...], ...]:
        """In the order of the dimensions: `_VALUES`, then the custom names."""
        custom = dict(facts.custom)
        return (
            () if facts.country is None else (facts.country,),
            facts.languages,
            () if facts.platform is None else (facts.platform,),
            facts.interests,
            () if facts.weekday is None else (facts.weekday,),
            () if facts.hour is None else (facts.hour,),
            *((custom[name],) if name in custom else () for name in self._custom_names),
        )


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
    """For each value the rows that name it."""

    def __init__(self, parts: Sequence[Exclusion], values: Callable[[Exclusion], Iterable[Hashable]]) -> None:
        rows: dict[Hashable, list[int]] = {}
        self._untargeted = np.ones(len(parts), dtype=np.bool_)
        for row, part in enumerate(parts):
            for value in values(part):
                rows.setdefault(value, []).append(row)
                self._untargeted[row] = False
        self._rows = {value: np.array(listed, dtype=np.int32) for value, listed in rows.items()}

    def fold(self, other: "_SetDimension", values: Iterable[Hashable]) -> Hashable:
        """The values that either dimension can tell apart, in an order of their own."""
        return frozenset(value for value in values if value in self._rows or value in other._rows)

    def untargeted_or(self, values: Iterable[Hashable]) -> Mask:
        return self._marked(self._untargeted.copy(), values)

    def any_of(self, values: Iterable[Hashable]) -> Mask:
        return self._marked(np.zeros_like(self._untargeted), values)

    def _marked(self, mask: Mask, values: Iterable[Hashable]) -> Mask:
        for value in values:
            rows = self._rows.get(value)
            if rows is not None:
                mask[rows] = True
        return mask


Range = tuple[int | None, int | None] | None
_LOWEST, _HIGHEST = -(2**62), 2**62


class _RangeDimension:
    """Numbers with both ends included. An unknown number matches only ads that ask for none."""

    def __init__(self, wanted: Sequence[Range], excluded: Sequence[Range]) -> None:
        self._untargeted = np.array([ends is None for ends in wanted], dtype=np.bool_)
        self._low, self._high = _ends(wanted, (_LOWEST, _HIGHEST))
        self._out_low, self._out_high = _ends(excluded, (1, 0))
        ends = [*self._low, *(self._high + 1), *self._out_low, *(self._out_high + 1)]
        self._steps = sorted({int(end) for end in ends})

    def fold(self, number: int | None) -> Hashable:
        return None if number is None else bisect_right(self._steps, number)

    def matches(self, number: int | None) -> Mask:
        if number is None:
            return self._untargeted
        inside = (self._low <= number) & (number <= self._high)
        return inside & ~((self._out_low <= number) & (number <= self._out_high))


def _ends(ranges: Sequence[Range], absent: tuple[int, int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    lows = [absent[0] if ends is None else _LOWEST if ends[0] is None else ends[0] for ends in ranges]
    highs = [absent[1] if ends is None else _HIGHEST if ends[1] is None else ends[1] for ends in ranges]
    return np.array(lows, dtype=np.int64), np.array(highs, dtype=np.int64)


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
