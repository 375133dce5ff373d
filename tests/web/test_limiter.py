"""The limit alone: what comes of it where callers wait for their answers, and where they do not."""

import random

import pytest
from one_core import DEADLINE_S, Core, Stall

from adserve.web.limiter import CALLERS, LATE_S, LIMIT_MAX, WAIT_S, WINDOW_S, Limiter, room

STALLS = [Stall(nth / 7, random.Random(nth).choice((0.003, 0.006, 0.012, 0.02))) for nth in range(21)]


class NoLimiter(Limiter):
    """The broken twin that admits whoever comes."""

    def admit(self) -> bool:
        super().admit()
        return True


class BusyLimiter(Limiter):
    """The broken twin that asks whether the core is busy: while it is, refusals lower the limit down to what is in flight when
    nobody waits; while it is not, they raise it."""

    async def step(self, now_ms: int) -> None:
        limit, worked_s = self.limit, self._worked_s() - self._worked_before_s
        refused, answered, late = self._refused, self._answered, self._late
        await super().step(now_ms)
        if late > answered / 2:
            self.limit = max(limit / 2, 1.0)
        elif worked_s > 0.8 * WINDOW_S and refused > 0.05 * (refused + answered):
            self.limit = min(limit, max(limit / 2, 4.0))
        else:
            self.limit = min(limit * (1.1 if refused else 2.0) + 1.0, LIMIT_MAX)


@pytest.mark.parametrize("robbed", [0.0, 0.4])
@pytest.mark.parametrize("service_s", [0.0001, 0.00025, 0.0005])
async def test_callers_who_come_back_at_once_do_not_keep_a_limit_down(
    service_s: float, robbed: float
) -> None:
    core = Core(Limiter, service_s=service_s, robbed=robbed)
    core.limiter.limit = 1.0
    await core.closed(CALLERS, seconds=0.5)
    after = await core.closed(CALLERS, seconds=2.0)
    assert after.refused == 0
    assert after.good > 0.95


async def test_control_a_limit_that_refusals_lower_is_kept_down() -> None:
    core = Core(BusyLimiter)
    core.limiter.limit = 4.0
    await core.closed(CALLERS, seconds=0.5)
    assert (await core.closed(CALLERS, seconds=2.0)).refused > 0.7


async def test_callers_who_wait_for_their_answers_are_not_refused_after_an_overload_and_stalls() -> None:
    core = Core(Limiter, stalls=STALLS)
    await core.open(3.0, seconds=1.0)
    assert core.limiter.limit < LIMIT_MAX / 2
    assert (await core.closed(CALLERS, seconds=2.0)).refused < 0.01
    assert core.limiter.limit == LIMIT_MAX


@pytest.mark.parametrize(("times", "good"), [(2.0, 0.85), (3.0, 0.75)])
@pytest.mark.parametrize("robbed", [0.0, 0.3])
async def test_when_more_come_than_the_core_can_answer_it_answers_as_many_soon(
    times: float, good: float, robbed: float
) -> None:
    core = Core(Limiter, robbed=robbed)
    await core.open(times, seconds=0.5)
    seen = await core.open(times, seconds=2.0)
    assert seen.good > good
    assert seen.p99_s < 2 * LATE_S


async def test_control_without_a_limit_nothing_comes_in_time() -> None:
    core = Core(NoLimiter)
    await core.open(2.0, seconds=0.5)
    assert (await core.open(2.0, seconds=2.0)).good < 0.05


async def test_control_a_core_that_others_have_for_some_of_the_time_is_never_busy() -> None:
    core = Core(BusyLimiter, robbed=0.3)
    await core.open(2.0, seconds=0.5)
    assert (await core.open(2.0, seconds=2.0)).p99_s > 2 * LATE_S


async def test_below_its_capacity_nobody_is_refused_for_a_stall() -> None:
    core = Core(Limiter, stalls=STALLS)
    assert (await core.open(0.6, seconds=3.0)).refused < 0.02


async def test_answers_that_wait_elsewhere_leave_the_core_enough_to_do() -> None:
    core = Core(Limiter, elsewhere_s=0.004)
    await core.open(2.0, seconds=0.5)
    assert (await core.open(2.0, seconds=2.0)).good > 0.7


async def test_a_slow_core_lets_in_fewer() -> None:
    core = Core(Limiter, service_s=0.002)
    await core.open(2.0, seconds=0.5)
    seen = await core.open(2.0, seconds=2.0)
    assert core.limiter.limit == pytest.approx(LATE_S / 0.002, abs=1.0)
    assert seen.p99_s < DEADLINE_S
    assert seen.good > 0.9


@pytest.mark.parametrize(
    ("one_s", "places"),
    [
        (0.0, LIMIT_MAX),
        (WAIT_S / 50, 50),
        (WAIT_S / CALLERS, CALLERS),
        (LATE_S / CALLERS, CALLERS),
        (LATE_S / 5, 5),
        (1.0, 1),
    ],
)
def test_how_much_room_there_is_for_what_takes_so_long(one_s: float, places: int) -> None:
    assert room(one_s) == pytest.approx(places)


async def test_a_window_that_tells_nothing_of_the_core_leaves_the_limit_as_it_is() -> None:
    limiter = Limiter(lambda: 0.0, lambda: 0.0)
    limiter.limit = 1.0
    assert [limiter.admit(), limiter.admit()] == [True, False]
    await limiter.step(0)
    assert limiter.limit == 1.0


@pytest.mark.parametrize("took_s", [0.0001, 1.0])
def test_whoever_is_done_makes_room(took_s: float) -> None:
    limiter = Limiter(lambda: 0.0, lambda: 0.0)
    assert all(limiter.admit() for _ in range(LIMIT_MAX))
    assert not limiter.admit()
    limiter.finish(took_s)
    assert limiter.admit()
    assert not limiter.admit()
