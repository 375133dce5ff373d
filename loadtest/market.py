"""Who buys and who looks: campaigns, viewers and their feeds, drawn from a seed."""

import itertools
import random
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from loadtest.generator import PERSON, SERIAL

ADVERTISER_CAMPAIGNS = 4
FEED_ITEMS = 30
MAX_ADS = 3
UNTARGETED = 0.05
"""The share of campaigns that want everybody."""
GUARANTEED = 0.02
CAPPED = 0.6
CONSENTING = 0.8
LARGE_MICROS = 10**12
"""So much that no budget ends during a run."""

COUNTRIES = (
    "IN", "ID", "BR", "US", "MX", "NG", "DE", "PK", "PH", "TR", "EG", "GB", "FR", "IT", "ES", "CO", "ZA", "AR", "MY", "KE",
    "SA", "NL", "PE", "CL", "MA", "GH", "AE", "PL", "TH", "BE", "PT", "AT", "SE", "CH", "IL", "SG", "GR", "NO", "DK", "FI",
)  # fmt: skip  # laid out as rows
LANGUAGES = ("en", "id", "pt", "hi", "es", "de", "ar", "fr")
INTERESTS = (
    "music",
    "food",
    "sport",
    "travel",
    "fashion",
    "games",
    "books",
    "film",
    "hiking",
    "garden",
    "tech",
    "art",
)
PLATFORMS = ("android", "ios", "web")

_zipf = list(itertools.accumulate(1 / rank for rank in range(1, len(COUNTRIES) + 1)))


class Brand(NamedTuple):
    """An advertiser's name and its campaigns, as bodies without the advertiser."""

    name: str
    campaigns: tuple[Mapping[str, Any], ...]


def brands(campaigns: int, seed: int) -> list[Brand]:
    chance = random.Random(seed)  # noqa: S311 - chance that can be repeated
    drawn = [_campaign(chance, nth) for nth in range(campaigns)]
    starts = range(0, campaigns, ADVERTISER_CAMPAIGNS)
    return [
        Brand(f"Brand {nth}", tuple(drawn[start : start + ADVERTISER_CAMPAIGNS]))
        for nth, start in enumerate(starts)
    ]


def money(micros: int) -> dict[str, Any]:
    return {"micros": micros, "currency": "USD"}


def slot_requests(viewers: int, seed: int) -> list[dict[str, Any]]:
    """One a viewer, who stands for several people of the same context and feed. Its `request` is another one each time it is sent."""
    chance = random.Random(seed + 1)  # noqa: S311 - chance that can be repeated
    return [
        {
            "request": SERIAL.decode(),
            "viewer": f"viewer-{nth}-{PERSON.decode()}",
            "surface": "status",
            "feed": _feed(chance, nth),
            "max_ads": MAX_ADS,
            "context": _context(chance),
            "consent": {"personalised": chance.random() < CONSENTING},
        }
        for nth in range(viewers)
    ]


def _campaign(chance: random.Random, nth: int) -> dict[str, Any]:
    by_click = chance.random() < 0.4
    price_micros = chance.randrange(100, 800) * 1_000 if by_click else chance.randrange(2_000, 20_000) * 1_000
    billable = "click" if by_click else chance.choices(("impression", "view"), (4, 1))[0]
    return {
        "name": f"Campaign {nth}",
        "starts_at": "2026-01-01T00:00:00Z",
        "bid": {"model": "cpc" if by_click else "cpm", "price": money(price_micros)},
        "billable": billable,
        "budget": {"daily": money(LARGE_MICROS)},
        "pacing": "asap",
        "priority": "guaranteed" if chance.random() < GUARANTEED else "auction",
        "targeting": {} if chance.random() < UNTARGETED else _targeting(chance),
        "caps": _caps(chance),
        "separation": [chance.choice(INTERESTS)] if chance.random() < 0.2 else [],
    }


def _targeting(chance: random.Random) -> dict[str, Any]:
    wanted: dict[str, Any] = {"countries": sorted(set(_countries(chance, chance.randint(1, 4))))}
    if chance.random() < 0.2:
        wanted["platforms"] = chance.sample(PLATFORMS, 2)
    if chance.random() < 0.25:
        youngest = chance.randint(13, 40)
        wanted["age"] = {"min": youngest, "max": youngest + chance.randint(10, 30)}
    if chance.random() < 0.25:
        wanted["interests"] = chance.sample(INTERESTS, 3)
    return wanted


def _caps(chance: random.Random) -> list[dict[str, Any]]:
    if chance.random() >= CAPPED:
        return []
    caps = [{"scope": "campaign", "count": chance.randint(2, 10), "window_s": 86_400}]
    if chance.random() < 0.3:
        caps.append({"scope": "advertiser", "count": chance.randint(10, 30), "window_s": 7 * 86_400})
    return caps


def _feed(chance: random.Random, viewer: int) -> list[dict[str, str]]:
    """Runs of one to four statuses of an author."""
    authors = [author for author in range(FEED_ITEMS) for _ in range(chance.randint(1, 4))][:FEED_ITEMS]
    return [{"id": f"s{viewer}-{nth}", "author": f"a{viewer}-{author}"} for nth, author in enumerate(authors)]


def _context(chance: random.Random) -> dict[str, Any]:
    return {
        "country": _countries(chance, 1)[0],
        "language": chance.choice(LANGUAGES),
        "platform": chance.choices(PLATFORMS, (7, 2, 1))[0],
        "app_version": f"2.26.{chance.randint(1, 12)}",
        "age": chance.randint(13, 75),
        "interests": chance.sample(INTERESTS, 2),
        "time_zone": "UTC",
    }


def _countries(chance: random.Random, count: int) -> Sequence[str]:
    """By Zipf's law."""
    return chance.choices(COUNTRIES, cum_weights=_zipf, k=count)
