"""The index against a predicate that is written down as the contract says it, on random markets."""

from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any

import pytest
from market import NOW_MS, make_ad

from adserve.domain.ads import Ad
from adserve.domain.facts import ViewerFacts
from adserve.domain.targeting import AgeRange, Exclusion, Targeting, VersionRange, parse_version
from adserve.selection.index import TargetingIndex

MARKETS = 300

NAMED: dict[str, tuple[Any, ...]] = {
    "countries": ("ID", "DE"),
    "languages": ("id", "pt", "pt-BR"),
    "platforms": ("android", "ios"),
    "interests": ("music", "sport", "tea"),
    "weekdays": (1, 6, 7),
    "hours": (0, 3, 23),
}
RANGED: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "age": (AgeRange, (None, 18, 20, 22)),
    "app_version": (VersionRange, (None, "2.1", "2.26.1", "3")),
}
CUSTOM = ("team", "plan")
VIEWERS: dict[str, tuple[Any, ...]] = {
    "country": (None, "ID", "DE", "XX"),
    "languages": ((), ("id",), ("pt-br", "pt"), ("pt",), ("xx",)),
    "platform": (None, "android", "ios", "web"),
    "version": (None, *map(parse_version, ("2", "2.1", "2.26.1", "2.26.1.1", "9"))),
    "age": (None, 17, 18, 19, 20, 21, 22, 23),
    "interests": ((), ("music",), ("tea", "sport"), ("sport", "chess"), ("chess",)),
    "weekday": (None, 1, 5, 7),
    "hour": (None, 0, 3, 12),
    "custom": (
        (),
        (("team", "red"),),
        (("team", "blue"),),
        (("plan", "gold"), ("team", "red")),
        (("shoe", "42"),),
    ),
}
MOMENTS = range(NOW_MS - 2, NOW_MS + 3)


def random_part(chance: Random, kind: type[Exclusion]) -> Any:
    """Asks for one thing, rarely two, so that most viewers are reached by something."""
    told: dict[str, Any] = {}
    for name in chance.sample([*NAMED, *RANGED, "custom"], chance.choice((0, 1, 1, 2))):
        if name in NAMED:
            told[name] = tuple(chance.sample(NAMED[name], chance.choice((0, 1, 2))))
        elif name in RANGED:
            range_type, ends = RANGED[name]
            told[name] = range_type(min=chance.choice(ends), max=chance.choice(ends))
        else:
            told[name] = {
                chance.choice(CUSTOM): tuple(chance.sample(("red", "gold"), chance.choice((0, 1, 2))))
            }
    return kind(**told)


def random_ads(chance: Random) -> list[Ad]:
    ads = []
    for number in range(chance.randrange(8)):
        targeting = random_part(chance, Targeting)
        if chance.random() < 0.4:
            targeting = Targeting(
                **{name: getattr(targeting, name) for name in Exclusion.__struct_fields__},
                exclude=random_part(chance, Exclusion),
            )
        starts_at_ms = chance.choice((0, 0, *MOMENTS))
        ends_at_ms = chance.choice((None, None, *MOMENTS))
        ads.append(make_ad(number, targeting=targeting, starts_at_ms=starts_at_ms, ends_at_ms=ends_at_ms))
    return ads


def viewers_and_their_likes(chance: Random) -> Iterator[tuple[ViewerFacts, int]]:
    """Viewers and moments, each followed by those that differ from it in one part alone, and again by itself."""
    for _ in range(3):
        viewer = ViewerFacts(**{name: chance.choice(values) for name, values in VIEWERS.items()})
        now_ms = chance.choice(MOMENTS)
        yield viewer, now_ms
        for name, values in VIEWERS.items():
            yield viewer._replace(**{name: chance.choice(values)}), now_ms
        yield viewer, chance.choice(MOMENTS)
        yield viewer, now_ms


def names_one(part: Exclusion, viewer: ViewerFacts) -> list[tuple[bool, bool]]:
    """For each part of a targeting: whether it asks for anything, and whether the viewer is among what it names."""
    custom = dict(viewer.custom)
    languages = [language.lower() for language in part.languages]
    sets = [
        (part.countries, {viewer.country}),
        (languages, set(viewer.languages)),
        (part.platforms, {viewer.platform}),
        (part.interests, set(viewer.interests)),
        (part.weekdays, {viewer.weekday}),
        (part.hours, {viewer.hour}),
        *((values, {custom.get(name)}) for name, values in part.custom.items()),
    ]
    version = part.app_version or VersionRange()
    ranges = [
        (part.age.min, part.age.max, viewer.age) if part.age else (None, None, viewer.age),
        (
            version.min and parse_version(version.min),
            version.max and parse_version(version.max),
            viewer.version,
        ),
    ]
    return [(bool(values), not known.isdisjoint(values)) for values, known in sets] + [
        (
            low is not None or high is not None,
            number is not None and (low is None or low <= number) and (high is None or number <= high),
        )
        for low, high, number in ranges
    ]


def reaches(ad: Any, viewer: ViewerFacts, now_ms: int) -> bool:
    campaign = ad.campaign
    live = campaign.starts_at_ms <= now_ms and (campaign.ends_at_ms is None or now_ms < campaign.ends_at_ms)
    wanted = all(named for asks, named in names_one(campaign.targeting, viewer) if asks)
    excluded = any(named for asks, named in names_one(campaign.targeting.exclude, viewer) if asks)
    return live and wanted and not excluded


def agrees(make: Callable[[Sequence[Ad]], TargetingIndex]) -> bool:
    """Whether an index always answers like the predicate."""
    for seed in range(MARKETS):
        chance = Random(seed)
        ads = random_ads(chance)
        index = make(ads)
        for viewer, now_ms in viewers_and_their_likes(chance):
            expected = [row for row, ad in enumerate(ads) if reaches(ad, viewer, now_ms)]
            if index.match(viewer, now_ms).tolist() != expected:
                return False
    return True


def test_matches_are_those_of_the_predicate() -> None:
    assert agrees(TargetingIndex)


@pytest.mark.parametrize("part", range(8))
def test_an_index_that_takes_one_part_for_another_is_noticed(part: int) -> None:
    """It looks at every part of a viewer but one."""

    class Forgetful(TargetingIndex):
        def __init__(self, ads: Sequence[Ad]) -> None:
            super().__init__(ads)
            dimensions = (*self._broad, *self._personal)
            dropped = dimensions[part] if part < len(dimensions) else None
            self._broad = tuple(dimension for dimension in self._broad if dimension is not dropped)
            self._personal = tuple(dimension for dimension in self._personal if dimension is not dropped)

    assert not agrees(Forgetful)


def test_what_no_campaign_mentions_makes_no_new_cell() -> None:
    index = TargetingIndex([make_ad(1, targeting=Targeting(interests=("tea",), custom={"team": ("red",)}))])
    for number in range(50):
        noise = f"unheard of {number}"
        custom = (("shoe", noise), ("team", noise))
        index.match(
            ViewerFacts(country=noise, interests=("tea", noise), custom=custom, age=20 + number), NOW_MS
        )
    assert len(index._cells._kept) == 1


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adserve.selection.index.CELLS_ROWS_MAX", 50)
    monkeypatch.setattr("adserve.selection.index.MASKS_BYTES_MAX", 200)
    ads = [make_ad(number, targeting=Targeting(countries=(f"C{number}",))) for number in range(20)]
    index = TargetingIndex(ads)
    for number in range(40):
        assert len(index.match(ViewerFacts(country=f"C{number}"), NOW_MS)) == (number < 20)
        assert sum(map(len, index._cells._kept.values())) <= 50
        assert all(len(dimension._masks) <= 10 for _, dimension in index._broad)


def test_a_kept_answer_cannot_be_changed_by_a_reader() -> None:
    rows = TargetingIndex([make_ad(1)]).match(ViewerFacts(), NOW_MS)
    with pytest.raises(ValueError, match="read-only"):
        rows[0] = 5


def test_no_ads_match_nobody() -> None:
    assert TargetingIndex([]).match(ViewerFacts(country="ID", age=20), NOW_MS).tolist() == []
