from collections.abc import Sequence

import pytest

from adserve.domain.ids import AdId
from adserve.domain.time import DAY_MS, HOUR_MS
from adserve.prediction.quality import QUALITY_MIN, WINDOW_MS, Qualities, qualities

NOW_MS = 1_767_225_600_000 + 12 * HOUR_MS + 1
GOOD, BAD, WORSE = AdId(1), AdId(2), AdId(3)


def test_an_ad_that_is_hidden_more_often_than_others_is_worth_less() -> None:
    found = qualities({GOOD: (1_000_000, 1_000), BAD: (10_000, 30), WORSE: (10_000, 300)})
    assert GOOD not in found
    assert 1 > found[BAD] > found[WORSE] == QUALITY_MIN


def test_twice_as_many_hides_halve_it_once_there_is_enough_to_tell() -> None:
    found = qualities({GOOD: (10**9, 10**6), BAD: (10**6, 2_000)})
    assert found == {BAD: pytest.approx(0.5, abs=0.01)}


@pytest.mark.parametrize("hidden", [0, 1])
def test_a_few_events_say_little(hidden: int) -> None:
    assert qualities({GOOD: (100_000, 200), BAD: (10, hidden)}).get(BAD, 1.0) > 0.6


def test_nothing_is_known_before_anything_was_shown() -> None:
    assert qualities({}) == {}
    assert qualities({GOOD: (0, 0)}) == {}


class RollUps:
    """Counts by hour; `read` tells what was asked for."""

    def __init__(self, events: Sequence[tuple[int, AdId, int, int]]) -> None:
        self.events = list(events)
        self.asked_ms: list[int] = []
        self.broken = False

    async def read(self, since_ms: int, until_ms: int) -> list[tuple[AdId, int, int]]:
        if self.broken:
            raise ConnectionError("away")
        assert since_ms % HOUR_MS == until_ms % HOUR_MS == 0
        self.asked_ms.append(until_ms - since_ms)
        return [tuple(event) for at_ms, *event in self.events if since_ms <= at_ms < until_ms]


async def counted(rollups: RollUps, keeper: Qualities, now_ms: int) -> dict[AdId, float]:
    """What the keeper answers, which must be what the events of the window come to."""
    answer = await keeper.step(now_ms)
    total: dict[AdId, tuple[int, int]] = {}
    for at_ms, ad, shown, hidden in rollups.events:
        if now_ms - WINDOW_MS <= at_ms <= now_ms:
            before = total.get(ad, (0, 0))
            total[ad] = (before[0] + shown, before[1] + hidden)
    assert answer == qualities(total)
    return answer


async def test_hours_are_read_once_and_the_newest_at_every_step() -> None:
    days = range(-29, 1)
    rollups = RollUps(
        [
            (NOW_MS + day * DAY_MS, ad, shown, hidden)
            for day in days
            for ad, shown, hidden in ((GOOD, 900, 1), (BAD, 500, 9))
        ]
    )
    keeper = Qualities(rollups.read)
    assert await keeper.step(NOW_MS) == {}
    assert rollups.asked_ms == [], "a start does not wait for the past"
    rollups.broken = True
    with pytest.raises(ConnectionError):
        await keeper.step(NOW_MS)
    rollups.broken = False
    assert BAD in await counted(rollups, keeper, NOW_MS)
    asked = len(rollups.asked_ms)
    for minute in range(1, 180):
        now_ms = NOW_MS + minute * 60_000
        if minute % 20 == 0:
            rollups.events.append((now_ms, WORSE, 400, 40))
        await counted(rollups, keeper, now_ms)
    assert len(rollups.asked_ms) - asked == 179 + 2, "one a step, and each hour that has passed"


async def test_what_is_older_than_the_window_drops_out_within_a_day() -> None:
    rollups = RollUps([(NOW_MS, BAD, 5_000, 500)])
    keeper = Qualities(rollups.read)
    for now_ms in (NOW_MS, NOW_MS + 1):
        found = await keeper.step(now_ms)
    assert BAD in found
    for day in range(1, 33):
        found = await keeper.step(NOW_MS + day * DAY_MS)
    assert found == {}
