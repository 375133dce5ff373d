"""Time is an integer of milliseconds since the epoch inside, an aware datetime at the edges."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

Clock = Callable[[], int]
"""Answers the present moment in milliseconds since the epoch; virtual in replays and tests."""

SECOND_MS = 1_000
HOUR_MS = 3_600 * SECOND_MS
DAY_MS = 24 * HOUR_MS

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
    return from_ms(moment_ms).isoformat(timespec="milliseconds").replace("+00:00", "Z")
