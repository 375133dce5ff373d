"""How much is kept of a viewer at most. No person is shown so much; one id that is sent for everybody is."""

import asyncio
from typing import Any

import pytest
from counting import START_MS, TTL_MS, VIEWER, A, B, reserve_one, ticket_id
from keepers import Log, keeping
from redis_servers import needs_redis
from shared import FreshCounters

from adserve.domain.time import DAY_MS
from adserve.limits import entries
from adserve.limits.counters import ENTRIES_MAX, CountersAway, MemoryCounters
from adserve.limits.rules import ALL, RETENTION_MS
from adserve.store.wire import CONFIRMED, Shown, event_of

OTHER = b"w" * 16
GROUP_MAX = 65_535
"""What two bytes count to."""


def shown_to_a_viewer(times: int) -> Shown:
    """Until a day ago, a millisecond apart."""
    last_ms = START_MS - DAY_MS
    events = [event_of(*A[:3], ticket_id(nth), CONFIRMED, last_ms - nth) for nth in range(times)]
    return Shown(VIEWER, A.labels, b"".join(events), last_ms)


async def fill(counters: Any, shown: Shown, times: int) -> None:
    if isinstance(counters, MemoryCounters):
        profile = counters._profiles.number(A.keys)
        moments = range(shown.last_ms - times + 1, shown.last_ms + 1)
        packed = [
            entries.decided(ticket_id(nth), True, at_ms, at_ms + TTL_MS, profile)
            for nth, at_ms in enumerate(moments)
        ]
        counters._keep(VIEWER, b"".join(packed))
    else:
        await counters.open()
        await counters.fill({VIEWER: [shown]}, START_MS)


async def test_a_viewer_has_a_bounded_number_of_entries(counters: Any) -> None:
    times = ENTRIES_MAX - 1
    shown = shown_to_a_viewer(times)
    await fill(counters, shown, times)
    assert await reserve_one(counters, B, times)
    assert not await reserve_one(counters, B, times + 1), "there is room for one"
    assert not await counters.confirm(B.ticket(ticket_id(times + 2)), START_MS, START_MS)
    assert await counters.confirm(B.ticket(ticket_id(times)), START_MS, START_MS), "it was counted all along"
    assert await counters.confirm(A.ticket(ticket_id(0)), START_MS, START_MS), "so was this"
    lapses_ms = shown.last_ms - times + 1 + RETENTION_MS
    assert not await reserve_one(counters, B, times + 3, lapses_ms - 1)
    assert await reserve_one(counters, B, times + 4, lapses_ms)


@needs_redis
async def test_of_a_viewer_with_too_many_entries_the_newest_are_put_back(redis_url: str) -> None:
    """Or nobody's counts could be known any more."""
    async with keeping(redis_url, Log(shown_to_a_viewer(GROUP_MAX + 1))) as keeper:
        await keeper.step(START_MS)
        assert keeper.counters.filled, keeper.detail
        asked = [(ALL, DAY_MS + ENTRIES_MAX), (ALL, RETENTION_MS)]
        assert await keeper.counters.usage(VIEWER, asked, START_MS) == [ENTRIES_MAX] * 2
        assert not await reserve_one(keeper.counters, A, GROUP_MAX + 1)


@needs_redis
async def test_after_a_fault_of_its_own_a_process_counts_on_nothing(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with keeping(redis_url) as keeper:
        await keeper.step(START_MS)
        monkeypatch.setattr(keeper, "_epoch_of", lambda _nodes: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            await keeper.step(START_MS)
        assert not keeper.counters.filled


@needs_redis
async def test_a_value_that_cannot_be_read_is_no_trouble_to_other_viewers(redis_url: str) -> None:
    shared, troubles = FreshCounters(redis_url, 1), list[str]()
    await shared.open()
    node, key = shared._place_of(VIEWER)
    node._on_trouble = troubles.append
    await node.call(("SET", key, b"?"), 1_000)
    asked = [shared.recall(viewer, None, START_MS, 1_000) for viewer in (VIEWER, OTHER)]
    unreadable, other = await asyncio.gather(*asked, return_exceptions=True)
    assert isinstance(unreadable, CountersAway)
    assert not isinstance(other, BaseException)
    assert not troubles
    shared.close()
    await asyncio.sleep(0)
