"""How many slot requests may be in the house at once: as many as are answered soon, and no more.

Before a core there is a queue, and the last of n requests in it waits for n times what one takes. So a wait is bounded by a
number, which is the wait by what one takes (Little's law); and that is what this thread worked in a window by how many it
answered: refusals and events, too, as whoever waits waits for them as well. Work is measured, not time: a clock also counts what
the core did for others, and what answers waited for Redis, and a limit that follows them down finds no way back.

It is looked for only where requests are refused or answered late. A queue that is long, but does not grow, is of callers who
ask again when they are answered, and to refuse those brings back the same callers at once. A core that is busy with that has nothing to
spare, so neither a busy core nor refusals may lower the limit by themselves: it would never rise again.
"""

from collections.abc import Callable

from prometheus_client import Counter, Gauge

LIMIT_MAX = 64
WAIT_S = 0.005
"""How long the last one waits at the limit, if the core has nothing else to do."""
CALLERS = 16
"""So many who ask again at once find room, unless the last of them would be late."""
LATE_S = 0.01
"""A third of the deadline that a request has when it names none."""
LATE_MAX = 0.5
"""The share of a window's answers that may be late before the limit is looked for."""
RECOVERY = 2.0
"""The limit grows so much in a window without need of it."""
WINDOW_S = 0.1

REFUSED = Counter("adserve_slots_overloaded", "Slot requests that were refused because of overload.")
LIMIT = Gauge("adserve_slots_limit", "How many slot requests may be in flight at once.")
LAG = Gauge("adserve_loop_lag_seconds", "How much later than due the event loop came to a timer.")


class Limiter:
    """Admits requests; `step` is to be called every WINDOW_S. `seconds` is a clock that never goes back, `worked_s` one that
    runs while this thread has the core."""

    def __init__(self, seconds: Callable[[], float], worked_s: Callable[[], float]) -> None:
        self.seconds = seconds
        self._worked_s = worked_s
        self._worked_before_s = worked_s()
        self.limit = float(LIMIT_MAX)
        self.in_flight = 0
        self._stepped_s = seconds()
        self._refused = 0
        self._answered = 0
        self._late = 0

    def admit(self) -> bool:
        """Whether there is room. Each True is to be followed by one `finish`."""
        if self.in_flight >= self.limit:
            self._refused += 1
            return False
        self.in_flight += 1
        return True

    def finish(self, took_s: float) -> None:
        self.in_flight -= 1
        self._answered += 1
        if took_s > LATE_S:
            self._late += 1

    async def step(self, _now_ms: int) -> None:
        """Looks at the window that ends now."""
        now_s, worked_s = self.seconds(), self._worked_s()
        if not self._refused and self._late <= LATE_MAX * self._answered:
            self.limit = min(self.limit * RECOVERY, LIMIT_MAX)
        elif self._answered:
            self.limit = room((worked_s - self._worked_before_s) / self._answered)
        REFUSED.inc(self._refused)
        LIMIT.set(self.limit)
        LAG.set(max(0.0, now_s - self._stepped_s - WINDOW_S))
        self._stepped_s, self._worked_before_s = now_s, worked_s
        self._answered = self._refused = self._late = 0


def room(one_s: float) -> float:
    """How many may be in the house where one takes so long of the core."""
    one_s = max(one_s, WAIT_S / LIMIT_MAX)
    return max(WAIT_S / one_s, min(CALLERS, LATE_S / one_s), 1.0)
