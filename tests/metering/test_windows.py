import random

from adserve.domain.time import SECOND_MS
from adserve.domain.traffic import Rate
from adserve.metering.windows import Memory, Window


def mark(nth: int) -> bytes:
    return nth.to_bytes(8, "big")


def test_exactly_the_rate_fits_every_window() -> None:
    """Against a count of all of them, for moments that do not go back."""
    chance = random.Random(1)
    for _ in range(50):
        rate = Rate(count=chance.randrange(1, 8), window_s=chance.randrange(1, 20))
        window, past, at_ms = Window(), list[int](), 0
        for nth in range(300):
            at_ms += chance.choice((0, 0, 1, 300, 2_000))
            in_window = sum(then > at_ms - rate.window_s * SECOND_MS for then in past)
            assert window.exceeded(b"k", mark(nth), rate, at_ms, at_ms) == (in_window >= rate.count)
            past.append(at_ms)


def test_a_mark_that_comes_again_changes_nothing() -> None:
    chance, rate = random.Random(2), Rate(count=3, window_s=60)
    once, often = Window(), Window()
    for nth in range(200):
        at_ms = nth * 7_000
        told = once.exceeded(b"k", mark(nth), rate, at_ms, at_ms)
        for _ in range(chance.randrange(1, 4)):
            assert often.exceeded(b"k", mark(nth), rate, at_ms, at_ms) == told


def test_control_without_marks_a_retry_would_be_a_flood() -> None:
    rate, window = Rate(count=1, window_s=60), Window()
    assert not window.exceeded(b"k", mark(1), rate, 0, 0)
    assert window.exceeded(b"k", mark(2), rate, 0, 0)


def test_memory_is_bounded_and_forgets_the_oldest_first() -> None:
    memory = Memory[int](keys_max=100)
    for nth in range(1_000):
        memory.put(mark(nth), nth, now_ms=nth, span_ms=10_000)
        assert len(memory) <= 200
        assert memory.get(mark(max(0, nth - 99))) == max(0, nth - 99)
    assert memory.get(mark(0)) is None


def test_memory_forgets_what_is_older_than_two_spans() -> None:
    memory = Memory[int]()
    for nth, now_ms in enumerate((0, 20_000, 40_000)):
        memory.put(mark(nth), nth, now_ms, span_ms=10_000)
    assert [memory.get(mark(nth)) for nth in range(3)] == [None, 1, 2]
