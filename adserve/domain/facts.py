"""What is known of a viewer for choosing an ad, as far as the viewer's consent allows."""

from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from adserve.domain.slots import Context
from adserve.domain.targeting import parse_version
from adserve.domain.time import DAY_MS, QUARTER_MS, from_ms
from adserve.domain.zones import main_zone

EXPOSURE_WINDOW_MS = 7 * DAY_MS
"""How far back a prediction counts what the viewer has seen."""

TEXTS_CACHED_MAX = 4_096

EXPOSURES_MAX = 4
"""Further exposures are told apart from these by no prediction."""
EXPOSURES_UNKNOWN = -1
"""Stands for the count of a viewer whose history may not be used."""


class ViewerFacts(NamedTuple):
    """Without consent, age, interests and custom values are empty, and what was seen is unknown.

    `languages` goes from exact to general. `seen` counts the impressions of any ad in the last EXPOSURE_WINDOW_MS. `weekday` (ISO 8601, Monday is 1) and
    `hour` are the viewer's own, in the country's main time zone where the viewer's is not known; None without either.
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


def facts_of(
    context: Context, personalised: bool, now_ms: int, surface: str | None = None, seen: int | None = None
) -> ViewerFacts:
    weekday, hour = _weekday_and_hour(context.time_zone, context.country, now_ms // QUARTER_MS)
    return ViewerFacts(
        country=context.country,
        languages=_with_general(context.language.lower()) if context.language else (),
        platform=context.platform,
        version=parse_version(context.app_version) if context.app_version else None,
        age=context.age if personalised else None,
        interests=context.interests if personalised else (),
        weekday=weekday,
        hour=hour,
        custom=tuple(sorted(context.custom.items())) if personalised and context.custom else (),
        surface=surface,
        seen=seen if personalised else None,
    )


@lru_cache(TEXTS_CACHED_MAX)
def _with_general(language: str) -> tuple[str, ...]:
    """`zh-hant-tw`, `zh-hant`, `zh`."""
    parts = language.split("-")
    return tuple("-".join(parts[:count]) for count in range(len(parts), 0, -1))


@lru_cache(TEXTS_CACHED_MAX)
def _weekday_and_hour(zone: str | None, country: str | None, quarter: int) -> tuple[int | None, int | None]:
    """In quarters of an hour since the epoch: no zone changes its hour at another moment."""
    for name in (zone, main_zone(country)):
        if name is not None:
            try:
                local = from_ms(quarter * QUARTER_MS).astimezone(ZoneInfo(name))
            except (ZoneInfoNotFoundError, ValueError, OSError):
                continue
            return local.isoweekday(), local.hour
    return None, None
