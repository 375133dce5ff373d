"""What is known of a viewer for choosing an ad, as far as the viewer's consent allows."""

from datetime import datetime
from typing import NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from adserve.domain.slots import Context
from adserve.domain.targeting import parse_version
from adserve.domain.time import DAY_MS, from_ms

EXPOSURE_WINDOW_MS = 7 * DAY_MS
"""How far back a prediction counts what the viewer has seen."""

EXPOSURES_UNKNOWN = -1
"""Stands for the count of a viewer whose history may not be used."""


class ViewerFacts(NamedTuple):
    """Without consent, age, interests and custom values are empty. `languages` goes from exact to general.

    `seen` counts the impressions of any ad in the last EXPOSURE_WINDOW_MS. `weekday` (ISO 8601, Monday is 1) and
    `hour` are the viewer's own; None without a known time zone.
    """

    country: str | None = None
    languages: tuple[str, ...] = ()
    platform: str | None = None
    version: int | None = None
    age: int | None = None
    interests: tuple[str, ...] = ()
    weekday: int | None = None
    hour: int | None = None
    custom: tuple[tuple[str, str], ...] = ()
    surface: str | None = None
    seen: int | None = None


def facts_of(context: Context, personalised: bool, now_ms: int) -> ViewerFacts:
    local = _local_time(context.time_zone, now_ms)
    return ViewerFacts(
        country=context.country,
        languages=_with_general(context.language.lower()) if context.language else (),
        platform=context.platform,
        version=parse_version(context.app_version) if context.app_version else None,
        age=context.age if personalised else None,
        interests=context.interests if personalised else (),
        weekday=local.isoweekday() if local else None,
        hour=local.hour if local else None,
        custom=tuple(sorted(context.custom.items())) if personalised else (),
    )


def _with_general(language: str) -> tuple[str, ...]:
    """`zh-hant-tw`, `zh-hant`, `zh`."""
    parts = language.split("-")
    return tuple("-".join(parts[:count]) for count in range(len(parts), 0, -1))


def _local_time(zone: str | None, now_ms: int) -> datetime | None:
    if zone is None:
        return None
    try:
        return from_ms(now_ms).astimezone(ZoneInfo(zone))
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None
