"""For how much of an hour the funnel was counted, and when it was not."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import NamedTuple
from uuid import UUID

from adserve.domain.time import HOUR_MS, SECOND_MS

SILENCE_MAX_MS = 10 * SECOND_MS
"""A process writes every second: one that did not for so long, and never said that it ended, has crashed."""


class Span(NamedTuple):
    """A time of which a process wrote down everything; `ended` says that nothing is missing behind it."""

    replica: UUID
    from_ms: int
    to_ms: int
    ended: bool


class Gap(NamedTuple):
    """A time of which a process may have counted what was lost. `to_ms` is when counting began again; None where it has
    not, or is not known to have."""

    replica: UUID
    from_ms: int
    to_ms: int | None


class Coverage(NamedTuple):
    """`covered_ms` of the hour some process counted. Another may have lost meanwhile what it counted: that is in `gaps` alone."""

    hour_ms: int
    covered_ms: int
    gaps: tuple[Gap, ...]


def gaps_of(spans: Sequence[Span], now_ms: int) -> list[Gap]:
    """`spans` are in the order in which they began."""
    found = []
    begun_ms = [span.from_ms for span in spans]
    next_ms: dict[UUID, int] = {}
    for span in reversed(spans):
        own_ms = next_ms.get(span.replica)
        next_ms[span.replica] = span.from_ms
        if own_ms is not None:
            found.append(Gap(span.replica, span.to_ms, own_ms))
        elif not span.ended and now_ms - span.to_ms > SILENCE_MAX_MS:
            place = bisect_left(begun_ms, span.to_ms)
            again_ms = begun_ms[place] if place < len(begun_ms) else None
            found.append(Gap(span.replica, span.to_ms, again_ms))
    return found[::-1]


def coverage(spans: Sequence[Span], hours_ms: Iterable[int], now_ms: int) -> list[Coverage]:
    """Of each of the hours; `spans` are in the order in which they began."""
    gaps, counted = gaps_of(spans, now_ms), _union(spans)
    return [_of_hour(counted, gaps, hour_ms, now_ms) for hour_ms in hours_ms]


def _of_hour(counted: Sequence[tuple[int, int]], gaps: Iterable[Gap], hour_ms: int, now_ms: int) -> Coverage:
    end_ms = hour_ms + HOUR_MS
    first, last = (
        bisect_right(counted, hour_ms, key=itemgetter(1)),
        bisect_left(counted, end_ms, key=itemgetter(0)),
    )
    covered = sum(min(to_ms, end_ms) - max(from_ms, hour_ms) for from_ms, to_ms in counted[first:last])
    reaching = [
        gap for gap in gaps if gap.from_ms < end_ms and (now_ms if gap.to_ms is None else gap.to_ms) > hour_ms
    ]
    return Coverage(hour_ms, covered, tuple(reaching))


def _union(spans: Iterable[Span]) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for _, from_ms, to_ms, _ in spans:
        if joined and from_ms <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(joined[-1][1], to_ms)
        else:
            joined.append((from_ms, to_ms))
    return joined
