"""What a process forgets of a viewer whom another one erases."""

from unittest.mock import AsyncMock
from uuid import uuid4

from world import NOW_MS, World

from adserve.access.keys import Key
from adserve.domain.ids import KeyId
from adserve.domain.time import SECOND_MS
from adserve.limits.counters import MemoryCounters
from adserve.limits.erased import Erased
from adserve.limits.hides import Hides
from adserve.metering.erasing import IN_FLIGHT_MS, Erasing
from adserve.store.erasures import Erasures

VIEWER, OTHER = b"c" * 16, b"o" * 16
KEY = Key(KeyId(1), "somebody's", frozenset(), None)


def process(erasures: Erasures) -> tuple[Erasing, Hides]:
    """Both viewers have hidden something."""
    hides = Hides(erased := Erased())
    for viewer in (VIEWER, OTHER):
        hides.add(viewer, 7, NOW_MS)
    return Erasing(erasures, erased, hides, MemoryCounters(1), AsyncMock(), (), AsyncMock()), hides


async def test_an_erasure_that_ended_unheard_is_made_up_for(world: World) -> None:
    erasures = Erasures(world.pools.recorder)
    (awake, known), (deaf, missed) = process(erasures), process(erasures)
    await deaf.step(NOW_MS)
    await erasures.ask(VIEWER, uuid4(), KEY, NOW_MS)
    ended_ms = NOW_MS + IN_FLIGHT_MS
    await awake.step(ended_ms)
    assert (awake.waiting, known.viewers()) == (0, [OTHER])
    assert missed.viewers() == [VIEWER, OTHER]
    await deaf.step(ended_ms + SECOND_MS)
    assert missed.viewers() == [OTHER]
