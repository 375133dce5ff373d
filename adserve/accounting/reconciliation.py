"""What comes out when the books are held against what the events say they must be."""

from collections.abc import Mapping
from datetime import date
from typing import NamedTuple

from adserve.domain.time import DAY_MS, HOUR_MS

DIFFERENCES_KEPT_MAX = 1_000


class Difference(NamedTuple):
    """A figure that stands in the books (`booked`) and comes out otherwise when it is derived again."""

    check: str
    key: tuple[str | None, ...]
    derived: int
    booked: int

    def __str__(self) -> str:
        subject = " ".join("-" if part is None else part for part in self.key)
        return f"{self.check} [{subject}]: derived {self.derived}, booked {self.booked}, off by {self.booked - self.derived}"


class Reconciliation(NamedTuple):
    """`compared` counts the figures, `differing` those that differ; `differences` has the first DIFFERENCES_KEPT_MAX.

    `events` and `billed_micros` (by currency) say how much was looked at: events one by one from `first_raw_day` on,
    by their closing entries before it.
    """

    first_raw_day: date | None
    events: int
    billed_micros: Mapping[str, int]
    compared: int
    differing: int
    differences: tuple[Difference, ...]

    @property
    def exact(self) -> bool:
        return self.differing == 0


def night_of(now_ms: int, hour: int) -> int:
    """The last moment at which a nightly run was due: `hour` o'clock, UTC."""
    offset_ms = hour * HOUR_MS
    return (now_ms - offset_ms) // DAY_MS * DAY_MS + offset_ms
