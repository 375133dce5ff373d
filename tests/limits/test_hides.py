from unittest.mock import AsyncMock, call

import pytest
from counting import START_MS, VIEWER

from adserve.domain.time import DAY_MS
from adserve.limits.hides import HIDES_MAX, OVERLAP_MS, HideReader, Hides

OTHER = b"w" * 16


def test_an_advertiser_is_hidden_from_who_hid_it() -> None:
    hides = Hides()
    for advertiser in (7, 8, 7):
        hides.add(VIEWER, advertiser, START_MS)
    assert set(hides.of(VIEWER)) == {7, 8}
    assert not hides.of(OTHER)
    assert len(hides) == 2


@pytest.mark.parametrize("again_ms", [0, DAY_MS])
def test_a_hide_is_forgotten_200_days_after_the_newest(again_ms: int) -> None:
    hides = Hides()
    hides.add(VIEWER, 7, START_MS + again_ms)
    hides.add(VIEWER, 7, START_MS)
    hides.add(OTHER, 7, START_MS + 2 * DAY_MS)
    hides.sweep(START_MS + again_ms + 200 * DAY_MS - 1)
    assert hides.of(VIEWER)
    hides.sweep(START_MS + again_ms + 200 * DAY_MS)
    assert not hides.of(VIEWER)
    assert hides.of(OTHER)


def test_the_oldest_are_forgotten_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adserve.limits.hides.HIDES_MAX", 2)
    hides = Hides()
    for advertiser in (1, 2, 3):
        hides.add(VIEWER, advertiser, START_MS)
    assert set(hides.of(VIEWER)) == {2, 3}


async def test_all_that_holds_is_read_once_and_then_what_is_new() -> None:
    hides, log = Hides(), AsyncMock()
    log.hides.return_value = [(VIEWER, 7, START_MS)]
    reader = HideReader(hides, log)
    for after_ms in (0, 60_000):
        await reader.step(START_MS + after_ms)
    assert log.hides.mock_calls == [
        call(START_MS - 200 * DAY_MS, HIDES_MAX),
        call(START_MS - OVERLAP_MS, HIDES_MAX),
    ]
    assert hides.of(VIEWER) == (7,)
