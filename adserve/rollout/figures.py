"""What this process does for the exposed viewers of a ramp, minute by minute: counts, and latencies as histograms.

Histograms of several processes and minutes add up; quantiles would not.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from adserve.domain.slots import NoFill
from adserve.domain.time import MINUTE_MS

MINUTES_MAX = 2_000
"""How many wait for the store; when there are more, the oldest are lost."""

BOUNDS_MS = tuple(round(0.25 * 1.25**nth, 3) for nth in range(40))
"""The upper bounds of the histograms' buckets, from a quarter of a millisecond to 1.5 s; one bucket is above the last."""

_DID_NOT_LOOK = frozenset(
    {
        NoFill.ROLLOUT_PAUSED,
        NoFill.NOT_IN_ROLLOUT,
        NoFill.HOLDOUT,
        NoFill.OPTED_OUT,
        NoFill.FEED_TOO_SHORT,
        NoFill.OVERLOADED,
    }
)
_ERRORS = frozenset({NoFill.DEGRADED, NoFill.DEADLINE})


def _buckets() -> list[int]:
    return [0] * (len(BOUNDS_MS) + 1)


@dataclass(slots=True)
class Minute:
    """`looked` decisions looked for ads, of which `unfilled` found none; `errors` of all were faults or late. `predicted` adds up the click
    rates of the ads `placed` that are paid by the click; `off_pace` how far off its plan each of `paced` campaigns was."""

    looked: int = 0
    unfilled: int = 0
    decisions: int = 0
    errors: int = 0
    placed: int = 0
    predicted: float = 0.0
    paced: int = 0
    off_pace: float = 0.0
    decision_ms: list[int] = field(default_factory=_buckets)
    feed_ms: list[int] = field(default_factory=_buckets)


class Saved(NamedTuple):
    ramp: int
    minute_ms: int
    counts: Minute


class Store(Protocol):
    async def save_minutes(self, minutes: Sequence[Saved]) -> None:
        """Puts each in place of what was saved of it before."""
        ...


class Figures:
    """`off_pace` answers, of a moment, how many campaigns have a plan of their day, and how far, relative to it, they are off in all."""

    def __init__(self, store: Store, off_pace: Callable[[int], tuple[int, float]]) -> None:
        self._store = store
        self._off_pace = off_pace
        self._minutes: dict[tuple[int, int], Minute] = {}

    def decided(self, ramp: int, no_fill: NoFill | None, took_ms: float, now_ms: int) -> None:
        minute = self._at(ramp, now_ms)
        minute.decisions += 1
        minute.decision_ms[bisect_left(BOUNDS_MS, took_ms)] += 1
        if no_fill in _ERRORS:
            minute.errors += 1
        elif no_fill not in _DID_NOT_LOOK:
            minute.looked += 1
            minute.unfilled += no_fill is not None

    def placed(self, ramp: int, click_rates: Sequence[float], now_ms: int) -> None:
        minute = self._at(ramp, now_ms)
        minute.placed += len(click_rates)
        minute.predicted += sum(click_rates)

    def wrapped(self, ramp: int, took_ms: float, now_ms: int) -> None:
        """What the wrapper added to a feed."""
        self._at(ramp, now_ms).feed_ms[bisect_left(BOUNDS_MS, took_ms)] += 1

    async def step(self, now_ms: int) -> None:
        if not self._minutes:
            return
        present_ms = now_ms - now_ms % MINUTE_MS
        campaigns, off = self._off_pace(now_ms)
        for (_, minute_ms), minute in self._minutes.items():
            if minute_ms == present_ms:
                minute.paced += campaigns
                minute.off_pace += off
        saved = [Saved(*key, minute) for key, minute in self._minutes.items()]
        await self._store.save_minutes(saved)
        for ramp, minute_ms, _ in saved:
            if minute_ms < present_ms:
                self._minutes.pop((ramp, minute_ms), None)

    def _at(self, ramp: int, now_ms: int) -> Minute:
        key = ramp, now_ms - now_ms % MINUTE_MS
        minute = self._minutes.get(key)
        if minute is None:
            if len(self._minutes) >= MINUTES_MAX:
                del self._minutes[min(self._minutes, key=lambda known: known[1])]
            minute = self._minutes[key] = Minute()
        return minute


def quantile_ms(buckets: Sequence[int], share: float) -> float | None:
    """Interpolated within its bucket, as Prometheus's histogram_quantile does; above the last bound it is that bound."""
    wanted = sum(buckets) * share
    before = 0
    for nth, count in enumerate(buckets):
        if count and before + count >= wanted:
            if nth == len(BOUNDS_MS):
                return BOUNDS_MS[-1]
            low = BOUNDS_MS[nth - 1] if nth else 0.0
            return low + (BOUNDS_MS[nth] - low) * (wanted - before) / count
        before += count
    return None
