import random
from collections.abc import Sequence

import pytest

from adserve.domain.slots import NoFill
from adserve.domain.time import MINUTE_MS
from adserve.rollout import figures
from adserve.rollout.figures import BOUNDS_MS, Figures, Minute, Saved, quantile_ms

NOW_MS = 1_767_225_600_000


class Kept:
    """A store that may be away."""

    def __init__(self) -> None:
        self.away = False
        self.minutes: dict[tuple[int, int], Minute] = {}

    async def save_minutes(self, minutes: Sequence[Saved]) -> None:
        if self.away:
            raise OSError
        self.minutes |= {(ramp, minute_ms): of for ramp, minute_ms, of in minutes}


def counted(store: Kept) -> Figures:
    return Figures(store, lambda _now_ms: (2, 0.3))


async def test_a_minute_is_what_was_counted_in_it() -> None:
    store = Kept()
    figures = counted(store)
    for no_fill in (None, None, NoFill.NO_ELIGIBLE_AD, NoFill.DEGRADED, NoFill.OPTED_OUT):
        figures.decided(7, no_fill, 2.0, NOW_MS + 59_999)
    figures.placed(7, [0.1, 0.2], NOW_MS)
    figures.decided(8, NoFill.DEADLINE, 9_999.0, NOW_MS + MINUTE_MS)
    figures.wrapped(8, 0.1, NOW_MS + MINUTE_MS)
    await figures.step(NOW_MS + 30_000)
    first, other = store.minutes[7, NOW_MS], store.minutes[8, NOW_MS + MINUTE_MS]
    assert (first.looked, first.unfilled, first.decisions, first.errors) == (3, 1, 5, 1)
    assert (first.placed, first.predicted) == (2, pytest.approx(0.3))
    assert (first.paced, first.off_pace) == (2, 0.3)
    assert sum(first.decision_ms) == 5
    assert (other.looked, other.errors, other.decision_ms[-1], other.feed_ms[0]) == (0, 1, 1, 1)


async def test_what_could_not_be_saved_is_saved_later_and_not_twice() -> None:
    store = Kept()
    figures = counted(store)
    store.away = True
    figures.decided(7, None, 2.0, NOW_MS)
    with pytest.raises(OSError):  # noqa: PT011 - the store's own
        await figures.step(NOW_MS)
    figures.decided(7, None, 2.0, NOW_MS + MINUTE_MS)
    store.away = False
    for after in (0, 1, 2):
        await figures.step(NOW_MS + (1 + after) * MINUTE_MS)
    assert [minute.decisions for minute in store.minutes.values()] == [1, 1]
    store.minutes.clear()
    await figures.step(NOW_MS + 9 * MINUTE_MS)
    assert store.minutes == {}


async def test_of_too_many_minutes_the_oldest_are_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "MINUTES_MAX", 3)
    store = Kept()
    counts = counted(store)
    for nth in range(5):
        counts.decided(7, None, 2.0, NOW_MS + nth * MINUTE_MS)
    await counts.step(NOW_MS + 5 * MINUTE_MS)
    assert [(minute_ms - NOW_MS) // MINUTE_MS for _, minute_ms in store.minutes] == [2, 3, 4]


def test_a_quantile_is_within_a_bucket_of_the_true_one() -> None:
    chance = random.Random(3)
    values = sorted(chance.lognormvariate(1.5, 0.8) for _ in range(20_000))
    store = Minute()
    counts = Figures(Kept(), lambda _now_ms: (0, 0.0))
    for value in values:
        counts.decided(7, None, value, NOW_MS)
    store = counts._minutes[7, NOW_MS]
    for share in (0.5, 0.9, 0.99):
        answer = quantile_ms(store.decision_ms, share)
        assert answer == pytest.approx(values[int(share * len(values))], rel=0.13)


def test_a_quantile_of_nothing_and_of_what_is_above_all_bounds() -> None:
    buckets = [0] * (len(BOUNDS_MS) + 1)
    assert quantile_ms(buckets, 0.99) is None
    buckets[-1] = 1
    assert quantile_ms(buckets, 0.99) == BOUNDS_MS[-1]
