"""Which questions about deliveries whole hours can answer."""

from datetime import timedelta
from zoneinfo import ZoneInfo

from adserve.domain.time import DAY_MS, HOUR_MS, from_ms


def made_of_hours(start_ms: int, end_ms: int, zone: ZoneInfo) -> bool:
    """Whether the time in between, and each of its days and hours in the zone, begins and ends with an hour in UTC."""
    if start_ms % HOUR_MS or end_ms % HOUR_MS:
        return False
    days = range(0, end_ms - start_ms + DAY_MS, DAY_MS)
    offsets = (from_ms(start_ms + passed_ms).astimezone(zone).utcoffset() for passed_ms in days)
    return all(offset is not None and not offset % timedelta(hours=1) for offset in offsets)
