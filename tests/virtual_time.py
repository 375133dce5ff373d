"""An event loop whose clock jumps to the next thing that is due, so that minutes pass in milliseconds, the same each time."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any

START_MS = 1_767_268_800_000  # 2026-01-01T12:00:00Z
RESOLUTION_S = 1e-6


class _Selector(selectors.SelectSelector):
    """Nothing ever arrives: whoever would wait has waited."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise RuntimeError("everybody waits for ever")
        if timeout:
            self.now_s += max(timeout, RESOLUTION_S)
        return []


class OrderedTask(asyncio.Task[Any]):
    """A group of tasks cancels a set of them: in the order in which they were added here, where else it is that of their addresses."""

    def __hash__(self) -> int:
        return 0


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)
        self.set_task_factory(lambda loop, main, **given: OrderedTask(main, loop=loop, **given))

    def time(self) -> float:
        return self._virtual.now_s

    def now_ms(self) -> int:
        return START_MS + round(self._virtual.now_s * 1_000)


def run(main: Coroutine[Any, Any, Any], loop: VirtualLoop) -> Any:
    try:
        return loop.run_until_complete(main)
    finally:
        loop.close()
