"""The limit alone, under a clock of the test's own."""

import pytest

from adserve.web.limiter import LIMIT_MAX, SPARE, WINDOW_S, Limiter


class Core:
    """A core on which each request takes `service_s`, and what time it has there."""

    def __init__(self, service_s: float = 0.001) -> None:
        self.now_s = 0.0
        self.worked_s = 0.0
        self.service_s = service_s
        self.limiter = Limiter(lambda: self.now_s, lambda: self.worked_s)

    async def window(self, burst: int, bursts: int, *, busy: float = 1.0) -> int:
        """`bursts` of so many requests at once within a window; answers how many were admitted."""
        began_s, admitted_in_all = self.now_s, 0
        for _ in range(bursts):
            admitted = sum([self.limiter.admit() for _ in range(burst)])
            for place in range(admitted):
                self.now_s += self.service_s
                self.limiter.finish((place + 1) * self.service_s)
            admitted_in_all += admitted
        self.now_s = max(self.now_s, began_s + WINDOW_S)
        self.worked_s += busy * (self.now_s - began_s)
        await self.limiter.step(0)
        return admitted_in_all


async def test_when_more_come_than_the_core_can_answer_few_wait() -> None:
    core = Core()
    for _ in range(20):
        await core.window(burst=200, bursts=10)
    # by Little's law about one is in flight when nobody waits
    assert core.limiter.limit <= 1.0 + SPARE + 1.0
    assert core.limiter.in_flight == 0


async def test_a_full_queue_that_does_not_grow_is_left_alone() -> None:
    core = Core(service_s=0.0002)
    for _ in range(20):
        assert await core.window(burst=32, bursts=15) == 32 * 15
    assert core.limiter.limit == LIMIT_MAX


async def test_a_burst_is_no_overload_while_the_core_has_time_to_spare() -> None:
    core = Core(service_s=0.0001)
    for _ in range(20):
        await core.window(burst=LIMIT_MAX * 2, bursts=1, busy=0.2)
    assert core.limiter.limit == LIMIT_MAX


async def test_answers_that_come_late_lower_the_limit_of_a_slow_core() -> None:
    core = Core(service_s=0.002)
    for _ in range(10):
        await core.window(burst=60, bursts=1, busy=0.5)
    assert core.limiter.limit < 25


async def test_the_limit_comes_back_when_the_overload_is_over() -> None:
    core = Core()
    for _ in range(20):
        await core.window(burst=200, bursts=10)
    assert core.limiter.limit < 10
    for _ in range(10):
        await core.window(burst=1, bursts=1)
    assert core.limiter.limit == LIMIT_MAX


@pytest.mark.parametrize("took_s", [0.0001, 1.0])
def test_whoever_is_done_makes_room(took_s: float) -> None:
    limiter = Core().limiter
    assert all(limiter.admit() for _ in range(LIMIT_MAX))
    assert not limiter.admit()
    limiter.finish(took_s)
    assert limiter.admit()
    assert not limiter.admit()
