"""How much less an ad is worth because people hide or report it.

An ad's hide rate is that of all ads with the weight of PRIOR_IMPRESSIONS, moved by its own events (a beta prior, as for
click rates). One that is hidden no more than ads are on the whole has the quality 1; one that is hidden n times as often has
1/n, never less than QUALITY_MIN.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from adserve.domain.ids import AdId
from adserve.domain.time import DAY_MS, HOUR_MS

PERIOD_S = 60.0
WINDOW_MS = 30 * DAY_MS
PRIOR_IMPRESSIONS = 1_000
FIRST_HIDES, FIRST_IMPRESSIONS = 1, 1_000
"""What is assumed to have been seen before anything was."""
QUALITY_MIN = 0.2
DECIMALS = 2
"""Finer changes would make a new snapshot of each minute and move no ad's place."""

Counts = dict[AdId, tuple[int, int]]
"""Ad -> (impressions, hides and reports)."""

Read = Callable[[int, int], Awaitable[Sequence[tuple[AdId, int, int]]]]
"""What was counted from one moment to another, both at a full hour: ad, impressions, hides and reports."""


class Qualities:
    """Whole hours are read once and kept, newer events at every step; once a day everything is read again, so that what
    is older than WINDOW_MS drops out and what was settled late is counted."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._counts: Counts = {}
        self._until_ms = 0
        self._renewed_at_ms: int | None = None

    async def step(self, now_ms: int) -> dict[AdId, float]:
        """The qualities below 1. The first step leaves the past alone: no start has to wait for it."""
        if self._renewed_at_ms is None:
            self._renewed_at_ms = now_ms - DAY_MS
            return {}
        settled_ms = (now_ms // HOUR_MS - 1) * HOUR_MS
        if now_ms - self._renewed_at_ms >= DAY_MS:
            self._counts, self._until_ms = {}, settled_ms - WINDOW_MS
            self._renewed_at_ms = now_ms
        while self._until_ms < settled_ms:  # a day at a time, so that no statement runs long
            end_ms = min(self._until_ms + DAY_MS, settled_ms)
            rows = await self._read(self._until_ms, end_ms)
            self._counts = await asyncio.to_thread(_added, self._counts, rows)
            self._until_ms = end_ms
        newest = await self._read(settled_ms, settled_ms + DAY_MS)
        return await asyncio.to_thread(lambda: qualities(_added(self._counts, newest)))


def qualities(counts: Mapping[AdId, tuple[int, int]]) -> dict[AdId, float]:
    """Those below 1, by ad."""
    impressions = FIRST_IMPRESSIONS + sum(shown for shown, _ in counts.values())
    overall = (FIRST_HIDES + sum(hidden for _, hidden in counts.values())) / impressions
    found = {}
    for ad, (shown, hidden) in counts.items():
        rate = (hidden + PRIOR_IMPRESSIONS * overall) / (shown + PRIOR_IMPRESSIONS)
        quality = max(QUALITY_MIN, round(overall / rate, DECIMALS))
        if quality < 1:
            found[ad] = quality
    return found


def _added(counts: Counts, rows: Sequence[tuple[AdId, int, int]]) -> Counts:
    total = dict(counts)
    for ad, shown, hidden in rows:
        before = total.get(ad, (0, 0))
        total[ad] = (before[0] + shown, before[1] + hidden)
    return total
