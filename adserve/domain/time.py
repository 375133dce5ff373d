"""Time is an integer of milliseconds since the epoch inside, an aware datetime at the edges."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

Clock = Callable[[], int]
"""Answers the present moment in milliseconds since the epoch; virtual in replays and tests."""

SECOND_MS = 1_000
MINUTE_MS = 60 * SECOND_MS
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS
QUARTER_MS = 15 * MINUTE_MS
"""Every time zone of today is a whole number of these from UTC."""
DAY_QUARTERS = DAY_MS // QUARTER_MS

SECONDS_CACHED_MAX = 1_024

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


def to_ms(moment: datetime) -> int:
    return (moment - _EPOCH) // _MILLISECOND


def from_ms(moment_ms: int) -> datetime:
    return _EPOCH + moment_ms * _MILLISECOND


def day_of(moment_ms: int) -> date:
    """The UTC day."""
    return from_ms(moment_ms).date()


def local_day(moment_ms: int, zone: ZoneInfo) -> date:
    return from_ms(moment_ms).astimezone(zone).date()


def rfc3339(moment_ms: int) -> str:
    second, ms = divmod(moment_ms, SECOND_MS)
    return f"{_second(second)}.{ms:03d}Z"


@lru_cache(SECONDS_CACHED_MAX)
def _second(second: int) -> str:
    return from_ms(second * SECOND_MS).isoformat(timespec="seconds").removesuffix("+00:00")
