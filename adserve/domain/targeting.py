"""Whom a campaign wants to reach. An empty part asks for nothing; values inside a part are alternatives."""

import re
from functools import lru_cache
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

VERSIONS_CACHED_MAX = 4_096

Country = Annotated[str, Meta(pattern="^[A-Z]{2}$", max_length=2, description="ISO 3166-1 alpha-2")]
Language = Annotated[str, Meta(pattern="^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$(?!\\n)", description="BCP 47")]
Version = Annotated[str, Meta(pattern="^[0-9]{1,3}(\\.[0-9]{1,5}){0,3}$(?!\\n)")]
Word = Annotated[str, Meta(pattern="^[^\\x00-\\x1f,]{1,64}$(?!\\n)")]
Age = Annotated[int, Meta(ge=0, le=130)]
Hour = Annotated[int, Meta(ge=0, le=23)]
Weekday = Annotated[int, Meta(ge=1, le=7, description="ISO 8601: Monday is 1")]

Values = Annotated[tuple[Word, ...], Meta(max_length=250)]


class VersionRange(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Both ends included."""

    min: Version | None = None
    max: Version | None = None


class AgeRange(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """In years, both ends included."""

    min: Age | None = None
    max: Age | None = None


class Exclusion(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Whom a campaign will not reach. A viewer of whom a part is unknown is not excluded by it."""

    countries: Annotated[tuple[Country, ...], Meta(max_length=250)] = ()
    languages: Annotated[tuple[Language, ...], Meta(max_length=250)] = ()
    platforms: Values = ()
    app_version: VersionRange | None = None
    age: AgeRange | None = None
    interests: Values = ()
    weekdays: Annotated[tuple[Weekday, ...], Meta(max_length=7)] = ()
    hours: Annotated[tuple[Hour, ...], Meta(max_length=24)] = ()
    custom: Annotated[dict[Word, Values], Meta(max_length=20)] = {}


class Targeting(Exclusion, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Whom a campaign wants. A viewer of whom an asked part is unknown does not match it.

    Weekdays and hours are the viewer's own, in the time zone that the request names, else in the main one of its country.
    """

    exclude: Exclusion = msgspec.field(default_factory=Exclusion)


@lru_cache(VERSIONS_CACHED_MAX)
def parse_version(version: str) -> int | None:
    """A number that orders dotted versions of up to four parts: `2.26.1` < `2.26.10`; missing parts are 0.

    Whatever follows the numbers ("-beta") is passed over; None when there are none or one is too long to order.
    """
    found = _VERSION.match(version)
    if found is None:
        return None
    number = 0
    for part in found.groups(default="0"):
        number = number * 100_000 + int(part)
    return number


_VERSION = re.compile(r"([0-9]{1,3}+)" + r"(?:\.([0-9]{1,5}+))?+" * 3 + "(?![0-9])")
