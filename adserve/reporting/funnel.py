"""For how much of an hour the funnel was counted, and when it was not."""

from collections.abc import Iterable, Sequence
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
    """`covered_ms` of the hour some process counted, and none lost what it counted then."""

    hour_ms: int
    covered_ms: int
    gaps: tuple[Gap, ...]


def gaps_of(spans: Sequence[Span], now_ms: int) -> list[Gap]:
    """`spans` are in the order in which they began."""
    found = []
    for place, span in enumerate(spans):
        own = next((other for other in spans[place + 1 :] if other.replica == span.replica), None)
        if own is not None:
            found.append(Gap(span.replica, span.to_ms, own.from_ms))
        elif not span.ended and now_ms - span.to_ms > SILENCE_MAX_MS:
            again_ms = min((other.from_ms for other in spans if other.from_ms >= span.to_ms), default=None)
            found.append(Gap(span.replica, span.to_ms, again_ms))
    return found


def coverage(spans: Sequence[Span], hours_ms: Iterable[int], now_ms: int) -> list[Coverage]:
    """Of each of the hours."""
    gaps = gaps_of(spans, now_ms)
    return [_of_hour(spans, gaps, hour_ms, now_ms) for hour_ms in hours_ms]


def _of_hour(spans: Iterable[Span], gaps: Iterable[Gap], hour_ms: int, now_ms: int) -> Coverage:
    end_ms = hour_ms + HOUR_MS
    covered = sum(to_ms - from_ms for from_ms, to_ms in _union(spans, hour_ms, end_ms))
    reaching = [
        gap for gap in gaps if gap.from_ms < end_ms and (now_ms if gap.to_ms is None else gap.to_ms) > hour_ms
    ]
    return Coverage(hour_ms, covered, tuple(reaching))


def _union(spans: Iterable[Span], start_ms: int, end_ms: int) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for span in sorted(spans, key=lambda span: span.from_ms):
        from_ms, to_ms = max(span.from_ms, start_ms), min(span.to_ms, end_ms)
        if from_ms >= to_ms:
            continue
        if joined and from_ms <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(joined[-1][1], to_ms)
        else:
            joined.append((from_ms, to_ms))
    return joined
