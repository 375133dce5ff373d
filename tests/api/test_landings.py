from typing import Any

import pytest
from msgspec.structs import replace

from adserve.api import beacons
from adserve.api.beacons import Landings
from adserve.catalogue.snapshot import EMPTY, Snapshot
from adserve.domain.ads import Ad, Creative
from adserve.domain.ids import AdId, AdvertiserId, CreativeId


class Database:
    def __init__(self) -> None:
        self.asked: list[int] = []

    async def landing_url(self, creative: int, revision: int) -> str | None:
        self.asked.append(creative)
        return None


def snapshot(*creatives: int) -> Snapshot:
    campaign: Any = None
    news = tuple(
        Ad(
            AdId(number),
            AdvertiserId(1),
            "a",
            campaign,
            Creative(
                CreativeId(number), 1, "image", "m", 1, 1, "h", "b", "c", f"https://example.org/{number}"
            ),
        )
        for number in creatives
    )
    return replace(EMPTY, news=news)


async def test_what_is_learnt_from_the_news_stays_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beacons, "LANDINGS_MAX", 3)
    database: Any = Database()
    landings = Landings(database)
    for creatives in ((1, 2), (3,), ()):
        landings.learn(snapshot(*creatives))
    assert [await landings.of(creative, 1) for creative in (1, 2, 3)] == [
        f"https://example.org/{number}" for number in (1, 2, 3)
    ]
    assert database.asked == []
    landings.learn(snapshot(4))
    assert await landings.of(1, 1) is None, "the first is forgotten first"
    assert await landings.of(2, 1) == "https://example.org/2"
    assert database.asked == [1]
