"""Rows of one catalogue as rows of the next: most ads stay, so columns are put together anew instead of worked out anew."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adserve.domain.ads import Ad

Column = NDArray[Any]

_NONE: Column = np.zeros(0, dtype=np.int32)
_GONE = -1


class Splice:
    """`fresh` are the ads of now that are none of before; columns of theirs follow those of before, and then each row of
    now takes what is its own."""

    def __init__(self, before: Sequence[Ad], now: Sequence[Ad]) -> None:
        rows = {ad: row for row, ad in enumerate(before)}
        source = np.fromiter((rows.get(ad, _GONE) for ad in now), dtype=np.intp, count=len(now))
        fresh = np.flatnonzero(source == _GONE)
        source[fresh] = np.arange(len(before), len(before) + len(fresh))
        self.fresh = [now[row] for row in fresh.tolist()]
        self._source = source
        self._first_fresh = np.int32(len(before))
        self._moved = np.full(len(before) + len(fresh), _GONE, dtype=np.int32)
        self._moved[source] = np.arange(len(now), dtype=np.int32)

    def column(self, before: Column, fresh: Column) -> Column:
        return np.concatenate((before, fresh)).take(self._source)

    def rows_by_value(
        self, before: Mapping[Hashable, Column], fresh: Mapping[Hashable, Column]
    ) -> dict[Hashable, Column]:
        """Without the values that no row has any more."""
        spliced = {
            value: self._rows(before.get(value, _NONE), fresh.get(value, _NONE))
            for value in {**before, **fresh}
        }
        return {value: rows for value, rows in spliced.items() if len(rows)}

    def _rows(self, before: Column, fresh: Column) -> Column:
        rows = self._moved.take(np.concatenate((before, fresh + self._first_fresh)))
        return rows.compress(rows != _GONE)
