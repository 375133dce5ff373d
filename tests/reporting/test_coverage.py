"""Which part of an hour was counted, and what is missing of it."""

from collections.abc import Iterator, Sequence
from random import Random
from uuid import UUID

import pytest

from adserve.domain.time import HOUR_MS, MINUTE_MS
from adserve.reporting.funnel import SILENCE_MAX_MS, Coverage, Gap, Span, coverage, gaps_of

A, B, C = (UUID(int=number) for number in (1, 2, 3))
LATER_MS = 10 * HOUR_MS


def of_first_hour(*spans: Span, now_ms: int = LATER_MS) -> Coverage:
    (told,) = coverage(spans, [0], now_ms)
    return told


def test_spans_of_several_processes_cover_an_hour_once() -> None:
    told = of_first_hour(
        Span(A, -5_000, 10_000, True), Span(B, 5_000, 20_000, True), Span(C, 30_000, LATER_MS, False)
    )
    assert told.covered_ms == 20_000 + HOUR_MS - 30_000
    assert told.gaps == ()


def test_a_process_that_never_said_that_it_ended_leaves_a_gap() -> None:
    crashed, successor = Span(A, 0, 7_000, False), Span(B, 9_000, LATER_MS, False)
    assert of_first_hour(crashed, successor).gaps == (Gap(A, 7_000, 9_000),)
    assert of_first_hour(crashed).gaps == (Gap(A, 7_000, None),)
    assert of_first_hour(crashed._replace(ended=True), successor).gaps == ()


def test_one_that_wrote_a_moment_ago_has_not_crashed() -> None:
    assert of_first_hour(Span(A, 0, 7_000, False), now_ms=12_000).gaps == ()


def test_a_process_that_lost_counts_and_went_on_has_a_gap_between() -> None:
    lossy = Span(A, 0, 7_000, False), Span(A, 8_000, LATER_MS, False)
    assert of_first_hour(*lossy).gaps == (Gap(A, 7_000, 8_000),)


def test_a_gap_is_told_of_every_hour_that_it_reaches_into() -> None:
    spans = [Span(A, 0, 7_000, False), Span(B, HOUR_MS + 5_000, LATER_MS, False)]
    first, second, third = coverage(spans, [0, HOUR_MS, 2 * HOUR_MS], LATER_MS)
    assert first.gaps == second.gaps == (Gap(A, 7_000, HOUR_MS + 5_000),)
    assert third == Coverage(2 * HOUR_MS, HOUR_MS, ())


def gaps_looked_for(spans: Sequence[Span], now_ms: int) -> Iterator[Gap]:
    """What `gaps_of` finds, each by a look at all spans."""
    for place, span in enumerate(spans):
        own = [other.from_ms for other in spans[place + 1 :] if other.replica == span.replica]
        if own:
            yield Gap(span.replica, span.to_ms, own[0])
        elif not span.ended and now_ms - span.to_ms > SILENCE_MAX_MS:
            later = [other.from_ms for other in spans if other.from_ms >= span.to_ms]
            yield Gap(span.replica, span.to_ms, min(later, default=None))


@pytest.mark.parametrize("seed", range(100))
def test_many_spans_tell_what_a_look_at_each_of_them_for_each_minute_tells(seed: int) -> None:
    chance, spans = Random(seed), list[Span]()
    for began in sorted(chance.choices(range(300), k=chance.randrange(12))):
        ended = began + chance.randrange(90)
        replica = chance.choice((A, B, C))
        spans.append(Span(replica, began * MINUTE_MS, ended * MINUTE_MS, chance.random() < 0.4))
    now_ms = chance.randrange(500) * MINUTE_MS
    assert gaps_of(spans, now_ms) == list(gaps_looked_for(spans, now_ms))
    told = coverage(spans, [hour * HOUR_MS for hour in range(7)], now_ms)
    for of_hour in told:
        minutes = range(of_hour.hour_ms, of_hour.hour_ms + HOUR_MS, MINUTE_MS)
        counted = [at for at in minutes if any(span.from_ms <= at < span.to_ms for span in spans)]
        assert of_hour.covered_ms == len(counted) * MINUTE_MS
