"""Clocks for runs that cannot wait for the real one."""

from adserve.domain.time import Clock


class VirtualClock:
    """Stands still until it is moved, and never goes back."""

    def __init__(self, now_ms: int) -> None:
        self._now_ms = now_ms

    def __call__(self) -> int:
        return self._now_ms

    def advance_to(self, moment_ms: int) -> None:
        if moment_ms < self._now_ms:
            raise ValueError(f"time would go back by {self._now_ms - moment_ms} ms")
        self._now_ms = moment_ms


class SkippingClock:
    """Another clock that can skip ahead: a minute passes at once, and goes on from there."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ahead_ms = 0

    def __call__(self) -> int:
        return self._clock() + self._ahead_ms

    def skip(self, duration_ms: int) -> None:
        self._ahead_ms += duration_ms
