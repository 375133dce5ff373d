"""The time zone that most people of a country live in, from the tz database's own table."""

from functools import cache
from importlib import resources

_MAIN_BUT_NOT_FIRST = {
    "AU": "Australia/Sydney",
    "BR": "America/Sao_Paulo",
    "CA": "America/Toronto",
    "RU": "Europe/Moscow",
    "UA": "Europe/Kyiv",
    "UZ": "Asia/Tashkent",
}
"""zone.tab lists a country's most populous zone first, unless geography speaks against it: in these countries it does
(checked against the populations of GeoNames' cities)."""


def main_zone(country: str | None) -> str | None:
    """`country` is an ISO 3166-1 alpha-2 code."""
    return None if country is None else _main_zones().get(country)


@cache
def _main_zones() -> dict[str, str]:
    table = resources.files("tzdata").joinpath("zoneinfo", "zone.tab").read_text(encoding="utf-8")
    zones: dict[str, str] = {}
    for line in table.splitlines():
        if not line.startswith("#"):
            country, _, zone, *_ = line.split("\t")
            zones.setdefault(country, zone)
    return zones | _MAIN_BUT_NOT_FIRST
