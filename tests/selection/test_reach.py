"""Who is reached, from the request on: facts and index together against the contract written down once more."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from market import make_ad

from adserve.domain.ads import Ad
from adserve.domain.facts import ViewerFacts, facts_of
from adserve.domain.slots import Context
from adserve.domain.targeting import AgeRange, Exclusion, Targeting, VersionRange
from adserve.domain.time import HOUR_MS, to_ms
from adserve.selection.index import TargetingIndex

MARKETS = 60
VIEWERS = 40
MAIN_ZONES = {"ID": "Asia/Jakarta", "BR": "America/Sao_Paulo", "DE": "Europe/Berlin", "NP": "Asia/Kathmandu"}
MOMENTS_MS = [
    to_ms(datetime(*moment, tzinfo=UTC))
    for moment in (
        (2026, 1, 4, 16, 59), (2026, 1, 4, 17, 0), (2026, 1, 4, 18, 15), (2026, 3, 29, 0, 59), (2026, 3, 29, 1, 0),
        (2026, 10, 25, 0, 30), (2026, 10, 25, 1, 30), (2026, 6, 30, 23, 59),
    )
]  # fmt: skip  # laid out as rows
"""Around midnight in Jakarta and Kathmandu, and where Berlin's clocks change."""

SETS: dict[str, tuple[Any, ...]] = {
    "countries": (*MAIN_ZONES, "XX"),
    "languages": ("id", "pt", "pt-BR", "zh-Hant"),
    "platforms": ("android", "ios", "web"),
    "interests": ("music", "sport", "tea"),
    "weekdays": tuple(range(1, 8)),
    "hours": tuple(range(24)),
}
VERSIONS = (None, "2", "2.26.1", "2.26.10")
AGES = (None, 18, 30, 64)
CUSTOM = {"team": ("red", "blue"), "plan": ("gold",)}
CONTEXTS: dict[str, tuple[Any, ...]] = {
    "country": (None, *MAIN_ZONES, "XX"),
    "language": (None, "id", "pt", "pt-br", "zh-Hant-TW", "PT-PT"),
    "platform": (None, "android", "ios", "watch"),
    "app_version": (None, "1.9", "2.26.1", "2.26.9-beta", "2.27", "new"),
    "age": (None, 17, 18, 30, 65),
    "interests": ((), ("music",), ("sport", "chess"), ("chess",)),
    "time_zone": (None, "UTC", "Asia/Jakarta", "America/New_York", "Europe/Berlin", "Mars/Olympus"),
    "custom": ({}, {"team": "red"}, {"team": "green", "plan": "gold"}, {"shoe": "42"}),
}


def random_part(chance: Random, kind: type[Exclusion], parts: int) -> Any:
    told: dict[str, Any] = {}
    for name in chance.sample([*SETS, "app_version", "age", "custom"], parts):
        if name == "app_version":
            told[name] = VersionRange(chance.choice(VERSIONS), chance.choice(VERSIONS))
        elif name == "age":
            told[name] = AgeRange(chance.choice(AGES), chance.choice(AGES))
        elif name == "custom":
            names = chance.sample(sorted(CUSTOM), chance.randint(1, 2))
            told[name] = {name: tuple(chance.sample(CUSTOM[name], 1)) for name in names}
        else:
            told[name] = tuple(chance.sample(SETS[name], chance.randint(1, len(SETS[name]) - 1)))
    return kind(**told)


def random_ads(chance: Random) -> list[Ad]:
    ads = []
    for number in range(chance.randint(1, 40)):
        wanted = random_part(chance, Targeting, chance.choice((0, 1, 1, 2, 3)))
        parts = {name: getattr(wanted, name) for name in Exclusion.__struct_fields__}
        exclude = random_part(chance, Exclusion, chance.choice((0, 0, 1, 2)))
        starts_at_ms = chance.choice((0, 0, 0, *MOMENTS_MS))
        ends_at_ms = chance.choice((None, None, *(at_ms + 1 for at_ms in MOMENTS_MS), *MOMENTS_MS))
        ads.append(
            make_ad(
                number,
                targeting=Targeting(**parts, exclude=exclude),
                starts_at_ms=starts_at_ms,
                ends_at_ms=ends_at_ms,
            )
        )
    return ads


def numbers(version: str | None) -> list[int] | None:
    """The dotted numbers that a version begins with, four of them."""
    found = re.match(r"\d+(\.\d+)*", version or "")
    return ([*map(int, found.group().split(".")), 0, 0, 0])[:4] if found else None


def local_time(context: Context, now_ms: int) -> datetime | None:
    zone = context.time_zone if context.time_zone != "Mars/Olympus" else None
    zone = zone or MAIN_ZONES.get(context.country or "")
    return datetime.fromtimestamp(now_ms / 1_000, UTC).astimezone(ZoneInfo(zone)) if zone else None


def told(part: Exclusion, context: Context, consent: bool, now_ms: int) -> list[bool]:
    """For each thing that a part asks for, whether the viewer is among it."""
    local = local_time(context, now_ms)
    language = (context.language or "").lower()
    age, version = (context.age if consent else None), numbers(context.app_version)
    answers = []
    if part.countries:
        answers.append(context.country in part.countries)
    if part.languages:
        answers.append(any(f"{language}-".startswith(f"{wanted.lower()}-") for wanted in part.languages))
    if part.platforms:
        answers.append(context.platform in part.platforms)
    if part.interests:
        answers.append(consent and any(interest in part.interests for interest in context.interests))
    if part.weekdays:
        answers.append(local is not None and local.isoweekday() in part.weekdays)
    if part.hours:
        answers.append(local is not None and local.hour in part.hours)
    if part.age and (part.age.min, part.age.max) != (None, None):
        low, high = part.age.min or 0, 999 if part.age.max is None else part.age.max
        answers.append(age is not None and low <= age <= high)
    if part.app_version and (part.app_version.min, part.app_version.max) != (None, None):
        least, most = numbers(part.app_version.min) or [0], numbers(part.app_version.max) or [999]
        answers.append(version is not None and least <= version <= most)
    for name, values in part.custom.items():
        answers.append(consent and context.custom.get(name) in values)
    return answers


def reaches(ad: Ad, context: Context, consent: bool, now_ms: int) -> bool:
    campaign = ad.campaign
    if now_ms < campaign.starts_at_ms or (campaign.ends_at_ms is not None and now_ms >= campaign.ends_at_ms):
        return False
    targeting = campaign.targeting
    return all(told(targeting, context, consent, now_ms)) and not any(
        told(targeting.exclude, context, consent, now_ms)
    )


Match = Callable[[list[Ad]], Callable[[Context, bool, int], list[int]]]


def matching(known: Callable[..., ViewerFacts] = facts_of) -> Match:
    def of(ads: list[Ad]) -> Callable[[Context, bool, int], list[int]]:
        index = TargetingIndex(ads)
        return lambda context, consent, now_ms: index.match(known(context, consent, now_ms), now_ms).tolist()

    return of


def agrees(make: Match) -> bool:
    reached = 0
    for seed in range(MARKETS):
        chance = Random(seed)
        ads = random_ads(chance)
        match = make(ads)
        for _ in range(VIEWERS):
            context = Context(**{name: chance.choice(values) for name, values in CONTEXTS.items()})
            consent, now_ms = chance.random() < 0.7, chance.choice(MOMENTS_MS)
            rows = [row for row, ad in enumerate(ads) if reaches(ad, context, consent, now_ms)]
            reached += len(rows)
            if match(context, consent, now_ms) != rows:
                return False
    assert reached > MARKETS * VIEWERS, "hardly anybody was reached, so little was seen"
    return True


def test_whoever_a_request_tells_of_meets_the_ads_that_the_contract_says() -> None:
    assert agrees(matching())


@pytest.mark.parametrize("name", CONTEXTS)
def test_control_a_request_that_is_read_without_one_of_its_fields_is_noticed(name: str) -> None:
    nothing = getattr(Context(), name)

    def forgetful(context: Context, consent: bool, now_ms: int) -> ViewerFacts:
        return facts_of(type(context)(**{**_fields(context), name: nothing}), consent, now_ms)

    assert not agrees(matching(forgetful))


def test_control_a_consent_that_is_taken_for_granted_is_noticed() -> None:
    assert not agrees(matching(lambda context, _consent, now_ms: facts_of(context, True, now_ms)))


def test_control_hours_that_are_those_of_utc_are_noticed() -> None:
    def in_utc(context: Context, consent: bool, now_ms: int) -> ViewerFacts:
        return facts_of(Context(**{**_fields(context), "time_zone": "UTC"}), consent, now_ms)

    assert not agrees(matching(in_utc))


@pytest.mark.parametrize("name", Exclusion.__struct_fields__)
def test_control_an_exclusion_that_is_not_kept_is_noticed(name: str) -> None:
    def without(ad: Ad) -> Ad:
        targeting = ad.campaign.targeting
        parts = {part: getattr(targeting, part) for part in Exclusion.__struct_fields__}
        excluded = {part: getattr(targeting.exclude, part) for part in Exclusion.__struct_fields__}
        excluded[name] = getattr(Exclusion(), name)
        return make_ad(
            ad.id,
            targeting=Targeting(**parts, exclude=Exclusion(**excluded)),
            starts_at_ms=ad.campaign.starts_at_ms,
            ends_at_ms=ad.campaign.ends_at_ms,
        )

    assert not agrees(lambda ads: matching()([without(ad) for ad in ads]))


def test_an_hour_of_day_is_met_once_a_day_wherever_the_viewer_is() -> None:
    index = TargetingIndex([make_ad(1, targeting=Targeting(hours=(9,)), starts_at_ms=0)])
    start_ms = MOMENTS_MS[0]
    for zone in ("UTC", "Asia/Kathmandu", "America/St_Johns"):
        met = [
            quarter
            for quarter in range(96)
            if len(
                index.match(
                    facts_of(Context(time_zone=zone), True, now_ms := start_ms + quarter * HOUR_MS // 4),
                    now_ms,
                )
            )
        ]
        assert len(met) == 4


def _fields(context: Context) -> dict[str, Any]:
    return {name: getattr(context, name) for name in CONTEXTS}
