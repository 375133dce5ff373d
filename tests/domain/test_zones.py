from importlib import resources
from zoneinfo import ZoneInfo

import pytest

from adserve.domain.zones import _MAIN_BUT_NOT_FIRST, main_zone

TABLE = resources.files("tzdata").joinpath("zoneinfo", "zone.tab").read_text(encoding="utf-8")
ROWS = [line.split("\t") for line in TABLE.splitlines() if not line.startswith("#")]


@pytest.mark.parametrize(
    ("country", "zone"),
    [
        ("ID", "Asia/Jakarta"), ("US", "America/New_York"), ("BR", "America/Sao_Paulo"), ("RU", "Europe/Moscow"),
        ("CN", "Asia/Shanghai"), ("MX", "America/Mexico_City"), ("ES", "Europe/Madrid"), ("IN", "Asia/Kolkata"),
        ("XX", None), (None, None),
    ],
)  # fmt: skip  # laid out as rows
def test_the_main_zone_is_where_most_people_live(country: str | None, zone: str | None) -> None:
    assert main_zone(country) == zone


def test_every_country_has_one_of_its_own_zones() -> None:
    own = {(country, zone) for country, _, zone, *_ in ROWS}
    countries = {country for country, _ in own}
    assert len(countries) > 240
    for country in countries:
        zone = main_zone(country)
        assert (country, zone) in own
        assert ZoneInfo(str(zone)).key == zone


def test_what_is_said_apart_says_something_else_than_the_table() -> None:
    first = {country: zone for country, _, zone, *_ in reversed(ROWS)}
    assert [country for country, zone in _MAIN_BUT_NOT_FIRST.items() if first[country] == zone] == []
