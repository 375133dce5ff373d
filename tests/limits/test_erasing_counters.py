"""Every kind of counters shows what it holds of a viewer, and holds nothing of an erased one."""

from typing import Any

import pytest
from counting import START_MS, VIEWER, A, B, C, reservation, ticket_id
from msgspec import structs

from adserve.domain.time import SECOND_MS
from adserve.limits.counters import CountersAway, MemoryCounters
from adserve.limits.erased import NOT_YET_MS, Erased, tombstone_of
from adserve.limits.held import Held
from adserve.limits.hides import Hides

OTHER = b"w" * 16
NOTHING = Held([], {}, [])


async def reserve(counters: Any, viewer: bytes, first: int) -> None:
    ask = structs.replace(
        reservation([A, B, C], [ticket_id(first), ticket_id(first + 1)]),
        request="r",
        digest=b"d",
        memo="memo",
    )
    await counters.reserve(viewer, ask, START_MS)


async def test_an_erased_viewer_is_gone_and_no_other(counters: Any) -> None:
    await reserve(counters, VIEWER, 1)
    await reserve(counters, OTHER, 3)
    held = await counters.held(VIEWER)
    assert [entry.state for entry in held.entries] == ["reserved", "reserved"]
    assert {entry.keys[0] for entry in held.entries} == {f"a{A.ad}", f"a{B.ad}"}
    assert held.requests == ["r"]
    for _ in range(2):
        await counters.erase(VIEWER)
        assert await counters.held(VIEWER) == NOTHING
        assert (await counters.recall(VIEWER, "r", START_MS)).earlier is None
        assert len((await counters.held(OTHER)).entries) == 2
        assert (await counters.recall(OTHER, "r", START_MS)).earlier is not None


async def test_a_viewer_is_not_counted_before_the_cut_and_counted_from_it_on() -> None:
    erased = Erased()
    counters = MemoryCounters(1, erased=erased)
    erased.learn({tombstone_of(VIEWER): NOT_YET_MS})
    with pytest.raises(CountersAway):
        await counters.recall(VIEWER, None, START_MS)
    await counters.recall(OTHER, None, START_MS)
    erased.learn({tombstone_of(VIEWER): START_MS + SECOND_MS})
    with pytest.raises(CountersAway):
        await counters.recall(VIEWER, None, START_MS + SECOND_MS - 1)
    await counters.recall(VIEWER, None, START_MS + SECOND_MS)


def test_hides_of_an_erased_viewer_are_gone() -> None:
    hides = Hides()
    for viewer in (VIEWER, OTHER):
        for advertiser in (1, 2):
            hides.add(viewer, advertiser, START_MS)
    hides.erase(VIEWER)
    assert (hides.of(VIEWER), hides.viewers(), len(hides)) == ((), [OTHER], 2)


def test_a_hide_that_was_read_before_an_erasure_does_not_come_back_with_it() -> None:
    erased = Erased()
    hides = Hides(erased)
    erased.learn({tombstone_of(VIEWER): START_MS + SECOND_MS})
    hides.add(VIEWER, 1, START_MS)
    assert hides.viewers() == []
    hides.add(VIEWER, 1, START_MS + SECOND_MS)
    assert hides.viewers() == [VIEWER]
