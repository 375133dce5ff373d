"""Whole decisions on random feeds and surfaces: where ads stand, how far apart, and what becomes of the feed."""

import json
from collections.abc import Callable
from itertools import pairwise
from random import Random
from typing import Any, NamedTuple

import pytest
from market import NOW_MS, Market, make_ad
from msgspec.structs import replace

from adserve.api.splicing import find_items, splice
from adserve.domain.surfaces import Surface

VISITS = 60
FEEDS = 12
LABELS = ("food", "drinks", "cars")

Authors = tuple[str | None, ...]
Break = Callable[[Surface, Authors], tuple[Surface, Authors]]
"""What a service that is wrong takes a surface and a feed for."""


class Shown(NamedTuple):
    """The ads of one answer."""

    at_ms: int
    authors: Authors
    positions: list[int]
    labels: list[tuple[str, ...]]


def random_surface(chance: Random) -> Surface:
    return Surface(
        first_ad_after=chance.randint(1, 5),
        min_gap=chance.randint(1, 5),
        max_per_feed=chance.randint(1, 5),
        min_feed_length=chance.randint(1, 10),
        min_time_s=chance.choice((0, 0, 60, 300)),
        separation_s=chance.choice((0, 120, 600)),
    )


def random_authors(chance: Random) -> Authors:
    authors: list[str | None] = []
    while len(authors) < chance.randint(0, 30):
        authors += [chance.choice(("a", "b", "c", "d", None))] * chance.randint(1, 4)
    return tuple(authors)


def violations(surface: Surface, earlier: list[Shown], shown: Shown) -> list[str]:
    positions, authors = shown.positions, shown.authors
    found = []
    if len(positions) > surface.max_per_feed:
        found.append("max_per_feed")
    if positions and len(authors) < surface.min_feed_length:
        found.append("min_feed_length")
    if any(position < surface.first_ad_after for position in positions):
        found.append("first_ad_after")
    if any(later - before < surface.min_gap for before, later in pairwise(positions)):
        found.append("min_gap")
    if not all(between_authors(authors, position) for position in positions):
        found.append("run")
    filled = [before.at_ms for before in earlier if before.positions]
    if positions and any(shown.at_ms - at_ms < surface.min_time_s * 1_000 for at_ms in filled):
        found.append("min_time_s")
    if surface.separation_s:
        window_ms = surface.separation_s * 1_000
        near = [before for before in earlier if shown.at_ms - before.at_ms < window_ms]
        labels = [label for visit in [*near, shown] for ad in visit.labels for label in ad]
        if len(set(labels)) < len(labels):
            found.append("separation_s")
    return found


def between_authors(authors: Authors, position: int) -> bool:
    return 0 < position < len(authors) and (
        None in authors[position - 1 : position + 1] or authors[position - 1] != authors[position]
    )


async def visits(seed: int, broken: Break | None = None) -> tuple[Surface, list[Shown]]:
    """A viewer who looks at feeds again and again, and what there was each time."""
    chance = Random(seed)
    surface = random_surface(chance)
    ads = [
        make_ad(number, separation=tuple(chance.sample(LABELS, chance.choice((0, 1, 2)))))
        for number in range(1, 9)
    ]
    market = Market(ads, surface=broken(surface, ())[0] if broken else surface)
    seen = []
    for _ in range(FEEDS):
        authors = random_authors(chance)
        told = broken(surface, authors)[1] if broken else authors
        decision = await market.answer(feed_length=len(told), authors=told, max_ads=chance.randint(1, 6))
        placements = decision.placements
        seen.append(
            Shown(
                market.now_ms,
                authors,
                [placement.position for placement in placements],
                [placement.ad.campaign.separation for placement in placements],
            )
        )
        market.now_ms += chance.choice((1, 30_000, 60_000, 299_999, 3_600_000))
    return surface, seen


async def violated(broken: Break | None = None) -> set[str]:
    found: set[str] = set()
    for seed in range(VISITS):
        surface, seen = await visits(seed, broken)
        for nth, shown in enumerate(seen):
            found.update(violations(surface, seen[:nth], shown))
    return found


async def test_every_rule_of_a_surface_holds_in_every_feed() -> None:
    assert await violated() == set()


LAX: dict[str, Break] = {
    "first_ad_after": lambda surface, authors: (replace(surface, first_ad_after=1), authors),
    "min_gap": lambda surface, authors: (replace(surface, min_gap=1), authors),
    "max_per_feed": lambda surface, authors: (replace(surface, max_per_feed=6), authors),
    "min_feed_length": lambda surface, authors: (replace(surface, min_feed_length=1), authors),
    "min_time_s": lambda surface, authors: (replace(surface, min_time_s=0), authors),
    "separation_s": lambda surface, authors: (replace(surface, separation_s=0), authors),
    "run": lambda surface, authors: (surface, (None,) * len(authors)),
}


@pytest.mark.parametrize("rule", LAX)
async def test_control_a_rule_that_is_not_kept_is_noticed(rule: str) -> None:
    assert rule in await violated(LAX[rule])


async def test_the_ads_stand_at_the_earliest_places_that_the_rules_leave() -> None:
    for seed in range(VISITS):
        surface, seen = await visits(seed)
        for shown in seen:
            least = surface.first_ad_after
            for position in shown.positions:
                assert not any(between_authors(shown.authors, passed) for passed in range(least, position))
                least = position + surface.min_gap


async def test_the_organic_items_keep_their_order_and_their_bytes() -> None:
    for seed in range(VISITS):
        _, seen = await visits(seed)
        for shown in seen:
            body = feed(shown.authors)
            items = find_items(body, 100)
            assert items is not None
            ads: list[tuple[int, bytes]] = [
                (position, b'{"type":"ad","nth":%d}' % nth) for nth, position in enumerate(shown.positions)
            ]
            spliced, spans = splice(body, items, ads)
            told: list[Any] = json.loads(spliced)["items"]
            organic = [item for item in told if item.get("type") != "ad"]
            assert organic == json.loads(body)["items"]
            places = [place for place, item in enumerate(told) if item.get("type") == "ad"]
            assert [place - nth for nth, place in enumerate(places)] == shown.positions
            for begin, end in reversed(spans):
                spliced = spliced[:begin] + spliced[end:]
            assert spliced == body


def feed(authors: Authors) -> bytes:
    items = [{"id": f"s{nth}", "author": author} for nth, author in enumerate(authors)]
    return json.dumps({"at": NOW_MS, "items": items, "next": None}, indent=1).encode()
