from datetime import UTC, datetime

import pytest

from adserve.domain.facts import ViewerFacts, facts_of
from adserve.domain.slots import Context
from adserve.domain.time import to_ms

NOW_MS = to_ms(datetime(2026, 1, 4, 20, 30, tzinfo=UTC))  # a Sunday
TOLD = Context(
    country="ID", language="zh-Hant-TW", platform="android", app_version="2.26.1", age=27, interests=("music",),
    time_zone="Asia/Jakarta", custom={"team": "red", "plan": "gold"},
)  # fmt: skip  # laid out as rows


def test_without_consent_age_interests_and_custom_values_are_unknown() -> None:
    facts = facts_of(TOLD, False, NOW_MS)
    assert (facts.age, facts.interests, facts.custom) == (None, (), ())
    assert (facts.country, facts.platform) == ("ID", "android")


def test_with_consent_they_are_known() -> None:
    facts = facts_of(TOLD, True, NOW_MS)
    assert (facts.age, facts.interests) == (27, ("music",))
    assert facts.custom == (("plan", "gold"), ("team", "red"))


def test_languages_go_from_exact_to_general() -> None:
    assert facts_of(TOLD, True, NOW_MS).languages == ("zh-hant-tw", "zh-hant", "zh")
    assert facts_of(Context(language="id"), True, NOW_MS).languages == ("id",)


def test_weekday_and_hour_are_the_viewers_own() -> None:
    facts = facts_of(TOLD, False, NOW_MS)
    assert (facts.weekday, facts.hour) == (1, 3)
    assert (facts_of(Context(time_zone="UTC"), False, NOW_MS))[6:8] == (7, 20)


@pytest.mark.parametrize("zone", [None, "Mars/Olympus"])
def test_without_a_known_zone_they_are_those_of_the_countrys_main_one(zone: str | None) -> None:
    facts = facts_of(Context(country="ID", time_zone=zone), False, NOW_MS)
    assert (facts.weekday, facts.hour) == (1, 3)
    elsewhere = facts_of(Context(country="ID", time_zone="UTC"), False, NOW_MS)
    assert (elsewhere.weekday, elsewhere.hour) == (7, 20)
    nowhere = facts_of(Context(country="XX", time_zone=zone), False, NOW_MS)
    assert (nowhere.weekday, nowhere.hour) == (None, None)


@pytest.mark.parametrize(
    "zone", ["", "Mars/Olympus", "../../etc/passwd", "/etc/localtime", "Europe", "a\0b", "x" * 9_999]
)
def test_a_zone_that_is_none_leaves_weekday_and_hour_unknown(zone: str) -> None:
    assert facts_of(Context(time_zone=zone), True, NOW_MS) == ViewerFacts()
