import asyncio
from collections.abc import Callable, Container
from contextlib import suppress

import pytest
from waiting import PATIENCE_S

from adserve.background import BACKOFF_FIRST_S, BACKOFF_MAX_S, LONG_S, Background, Task

really_sleep = asyncio.sleep


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long each sleep would have been; none takes any time."""
    durations: list[float] = []

    async def sleep(duration_s: float) -> None:
        durations.append(duration_s)
        await really_sleep(0)

    monkeypatch.setattr("adserve.background.asyncio.sleep", sleep)
    return durations


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not holds():
            await really_sleep(0)


class Step:
    """Remembers when it was called, and fails in the calls that it is told to (from 1)."""

    def __init__(self, failing: Container[int] = ()) -> None:
        self.failing = failing
        self.moments: list[int] = []

    async def __call__(self, now_ms: int) -> None:
        self.moments.append(now_ms)
        if len(self.moments) in self.failing:
            raise ConnectionError("away")


async def test_a_step_is_given_the_time_and_repeats(slept: list[float]) -> None:
    step, moments = Step(), iter(range(1_000_000))
    background = Background([Task("poll", step, every_s=0.5)], lambda: next(moments))
    background.start()
    await until(lambda: len(step.moments) >= 3)
    await background.stop()
    assert step.moments[:3] == [0, 1, 2]
    assert set(slept) == {0.5}


async def test_failures_back_off_up_to_a_bound_and_are_named_until_it_recovers(slept: list[float]) -> None:
    step = Step(failing=range(1, 9))
    background = Background([Task("poll", step, every_s=60)], lambda: 0)
    background.start()
    await until(lambda: len(step.moments) == 3)
    assert {name: failure.reason for name, failure in background.failures.items()} == {
        "poll": "ConnectionError: away"
    }
    await until(lambda: len(step.moments) == 10)
    await background.stop()
    assert background.failures == {}
    assert slept[:3] == [BACKOFF_FIRST_S, 2 * BACKOFF_FIRST_S, 4 * BACKOFF_FIRST_S]
    assert max(slept[:8]) == BACKOFF_MAX_S
    assert slept[8] == 60


async def test_a_failing_task_is_tried_again_within_its_own_period(slept: list[float]) -> None:
    """The poll that sees a pause must not wait for longer because PostgreSQL was away."""
    background = Background([Task("poll", Step(failing=range(1_000_000)), every_s=0.5)], lambda: 0)
    background.start()
    await until(lambda: len(slept) > 20)
    await background.stop()
    assert max(slept) == 0.5


@pytest.mark.parametrize(("error", "told_where"), [(ConnectionError("away"), False), (KeyError("bug"), True)])
async def test_only_a_bug_is_logged_with_its_traceback(
    slept: list[float], caplog: pytest.LogCaptureFixture, error: Exception, told_where: bool
) -> None:
    async def fail(_now_ms: int) -> None:
        raise error

    background = Background([Task("poll", fail, every_s=0.5)], lambda: 0)
    background.start()
    await until(lambda: len(slept) > 3)
    await background.stop()
    (record,) = caplog.records
    assert type(error).__name__ in record.getMessage()
    assert bool(record.exc_info) is told_where


async def test_backoff_starts_again_after_a_recovery(slept: list[float]) -> None:
    step = Step(failing={1, 2, 4, 5})
    background = Background([Task("poll", step, every_s=60)], lambda: 0)
    background.start()
    await until(lambda: len(slept) >= 6)
    await background.stop()
    twice = [BACKOFF_FIRST_S, 2 * BACKOFF_FIRST_S, 60]
    assert slept[:6] == twice + twice


@pytest.mark.virtual_time
async def test_a_failure_counts_from_the_first_until_a_step_ends_well() -> None:
    step = Step(failing=range(100, 1_000_000))
    background = Background([Task("poll", step, every_s=1)], lambda: 0)
    background.start()
    await asyncio.sleep(98.5)
    assert background.failures == {}
    await asyncio.sleep(LONG_S + 1)
    failing_s = background.failures["poll"].for_s
    step.failing = ()
    await asyncio.sleep(2)
    recovered = background.failures
    await background.stop()
    assert LONG_S < failing_s < LONG_S + 2
    assert recovered == {}


@pytest.mark.virtual_time
async def test_a_step_that_never_ends_has_recovered_once_it_has_run_for_long() -> None:
    """Two failures an hour apart are two, not one of an hour."""
    calls = 0

    async def run(_now_ms: int) -> None:
        nonlocal calls
        calls += 1
        await asyncio.sleep(3_600)
        raise ConnectionError("away")

    background = Background([Task("recorder", run, every_s=1)], lambda: 0)
    background.start()
    await asyncio.sleep(3_601)
    assert set(background.failures) == {"recorder"}
    await asyncio.sleep(LONG_S)
    assert background.failures == {}
    await asyncio.sleep(3_600 - LONG_S)
    again = background.failures["recorder"]
    await background.stop()
    assert (calls, again.for_s) == (3, 0)


async def test_a_failing_task_does_not_hold_up_the_others(slept: list[float]) -> None:
    failing, working = Step(failing=range(1_000_000)), Step()
    tasks = [Task("failing", failing, 1), Task("working", working, 1)]
    background = Background(tasks, lambda: 0)
    background.start()
    await until(lambda: len(working.moments) >= 5)
    await background.stop()
    assert set(background.failures) == {"failing"}


async def test_a_wake_runs_the_step_at_once_and_one_during_a_step_is_not_lost() -> None:
    wake, step = asyncio.Event(), Step()

    async def wakes_itself_once(now_ms: int) -> None:
        await step(now_ms)
        if len(step.moments) == 2:
            wake.set()

    background = Background([Task("poll", wakes_itself_once, every_s=3_600, wake=wake)], lambda: 0)
    background.start()
    await until(lambda: len(step.moments) == 1)
    wake.set()
    await until(lambda: len(step.moments) == 3)
    for _ in range(10):
        await really_sleep(0)
    await background.stop()
    assert len(step.moments) == 3


async def test_a_task_that_nobody_wakes_runs_when_its_time_comes() -> None:
    step = Step()
    background = Background([Task("poll", step, every_s=0.001, wake=asyncio.Event())], lambda: 0)
    background.start()
    async with asyncio.timeout(PATIENCE_S):
        while len(step.moments) < 3:
            await really_sleep(0.001)
    await background.stop()


async def test_stopping_interrupts_a_step_and_leaves_no_task_behind() -> None:
    started, ended = asyncio.Event(), asyncio.Event()

    async def hang(_now_ms: int) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    before = asyncio.all_tasks()
    background = Background([Task("hang", hang, 1)], lambda: 0)
    background.start()
    await started.wait()
    await background.stop()
    assert ended.is_set()
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize("caught", [(), (ConnectionError,)])
async def test_stopping_ends_a_step_that_fails_as_it_is_cancelled(
    caught: tuple[type[Exception], ...],
) -> None:
    """Also where it deals with the failure itself."""
    started = asyncio.Event()

    async def fail_to_close(_now_ms: int) -> None:
        started.set()
        with suppress(*caught):
            try:
                await asyncio.Event().wait()
            finally:
                raise ConnectionError

    background = Background([Task("closing", fail_to_close, every_s=3_600)], lambda: 0)
    background.start()
    await started.wait()
    async with asyncio.timeout(PATIENCE_S):
        await background.stop()
