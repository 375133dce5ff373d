"""How many slot requests may be in the house at once: enough to keep the core busy, and no more.

Additive increase, multiplicative decrease (Chiu and Jain 1989; `AIMDLimit` of Netflix's concurrency-limits), with a
floor by Little's law as `Gradient2Limit` there finds it: what is answered in a second, times the least that an answer
took, is what would be in flight if nobody waited. Beyond that floor a deeper queue answers no more requests, it only lets
those that are admitted wait. What tells that there are too many are refusals while the core has nothing to spare, and answers
that come late. Refusals alone do not (a burst may be more than a low limit lets in), and neither does a full
queue: callers who wait for their answers before they ask again fill one that never grows.
"""

from collections.abc import Callable

from prometheus_client import Counter, Gauge

LIMIT_MAX = 64
SPARE = 3.0
"""Above the floor: so that there is a next request whenever one is answered."""
DECREASE = 0.5
INCREASE = 1.1
RECOVERY = 2.0
"""In place of the increase, when nobody was refused."""
WINDOW_S = 0.1
REFUSED_MAX = 0.05
LATE_MAX = 0.5
"""The shares of a window's requests that may be refused, or be late, before the limit goes down."""
LATE_S = 0.01
"""A third of the deadline that a request has when it names none."""
BUSY = 0.8
"""A core that has worked for this share of a window has nothing to spare."""
FORGET = 1.02
"""The least time grows so much with each window, until it is seen again."""

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
        self._least_s = LATE_S

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
        elif took_s < self._least_s:
            self._least_s = took_s

    async def step(self, _now_ms: int) -> None:
        """Looks at the window that ends now."""
        now_s = self.seconds()
        elapsed_s, self._stepped_s = now_s - self._stepped_s, now_s
        worked_s = self._worked_s()
        busy, self._worked_before_s = worked_s - self._worked_before_s > BUSY * elapsed_s, worked_s
        if self._late > LATE_MAX * self._answered:
            self.limit = max(self.limit * DECREASE, 1.0)
        elif busy and self._refused > REFUSED_MAX * (self._refused + self._answered):
            floor = self._answered / elapsed_s * self._least_s + SPARE
            self.limit = min(self.limit, max(self.limit * DECREASE, floor))
        else:
            self.limit = min(self.limit * (INCREASE if self._refused else RECOVERY) + 1.0, LIMIT_MAX)
        self._least_s = min(self._least_s * FORGET, LATE_S)
        REFUSED.inc(self._refused)
        LIMIT.set(self.limit)
        LAG.set(max(0.0, elapsed_s - WINDOW_S))
        self._answered = self._refused = self._late = 0
