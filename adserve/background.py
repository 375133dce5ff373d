"""Runs the background tasks: each its own loop, with backoff after a failure, and a health that /readyz shows."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from adserve.domain.time import Clock
from adserve.metering.errors import JournalAway
from adserve.store.errors import AWAY, Away

log = logging.getLogger(__name__)

OUTAGES = (Away, JournalAway, *AWAY)

PACE_S = 0.02
BACKOFF_FIRST_S = 0.2
BACKOFF_MAX_S = 5.0
"""And never longer than a task's own period: after an outage a pause is obeyed as soon as ever."""
LONG_S = 300.0
"""As long as a snapshot and the serving lock last without PostgreSQL: in an outage no task makes a replica unready before these do."""


class Task(NamedTuple):
    """`step` runs every `every_s`, and when `wake` is set, but `pace_s` after the last one at the soonest. A step is safe
    to repeat. `needed` where slots cannot be decided or events not recorded without it for LONG_S, and nothing else would say so."""

    name: str
    step: Callable[[int], Awaitable[object]]
    every_s: float
    wake: asyncio.Event | None = None
    pace_s: float = PACE_S
    needed: bool = False


class Failure(NamedTuple):
    """Why the last step failed, and when, by the loop's clock, the first that did and that one."""

    reason: str
    needed: bool
    since_s: float
    last_s: float

    @property
    def for_s(self) -> float:
        return self.last_s - self.since_s


class Background:
    """The running tasks."""

    def __init__(self, tasks: Sequence[Task], clock: Clock) -> None:
        self._tasks = tasks
        self._clock = clock
        self._loops: list[asyncio.Task[None]] = []
        self._stopping = False
        self._failures: dict[str, Failure] = {}

    @property
    def failures(self) -> dict[str, Failure]:
        """Of the tasks whose last step failed. One that has run for LONG_S since has recovered: some steps never end."""
        after_s = _now_s() - LONG_S
        return {name: failure for name, failure in self._failures.items() if failure.last_s >= after_s}

    def start(self) -> None:
        self._loops = [asyncio.create_task(self._loop(task), name=task.name) for task in self._tasks]

    async def stop(self) -> None:
        self._stopping = True
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)

    async def _loop(self, task: Task) -> None:
        backoff_s = BACKOFF_FIRST_S
        while True:
            if task.wake is not None:
                task.wake.clear()
            try:
                await task.step(self._clock())
            except Exception as error:
                if self._stopping:  # what failed as it was cancelled hid the cancellation
                    return
                self._note(task, error)
                await asyncio.sleep(backoff_s)
                backoff_s = min(backoff_s * 2, BACKOFF_MAX_S, task.every_s)
                continue
            if self._stopping:  # so did what dealt with its failure itself
                return
            if self._failures.pop(task.name, None) is not None:
                log.info("background task recovered", extra={"task": task.name})
            backoff_s = BACKOFF_FIRST_S
            await self._pause(task)

    def _note(self, task: Task, error: Exception) -> None:
        """Once for each time that a task begins to fail; only what is no outage of PostgreSQL's needs its traceback."""
        reason = f"{type(error).__name__}: {error}"[:200]
        before, last_s = self.failures.get(task.name), _now_s()
        if before is None:
            bug = not isinstance(error, OUTAGES)
            log.warning("background task failed: %s", reason, extra={"task": task.name}, exc_info=bug)
        since_s = last_s if before is None else before.since_s
        self._failures[task.name] = Failure(reason, task.needed, since_s, last_s)

    @staticmethod
    async def _pause(task: Task) -> None:
        if task.wake is None:
            await asyncio.sleep(task.every_s)
            return
        await asyncio.sleep(task.pace_s)
        try:
            async with asyncio.timeout(task.every_s):
                await task.wake.wait()
        except TimeoutError:
            pass


def _now_s() -> float:
    return asyncio.get_running_loop().time()
