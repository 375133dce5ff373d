"""I4 from end to end: clients at once, through Slots and Intake, judged by the events that were stored."""

import asyncio
import os
import random
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest
from clients import REMEMBERED, Clients, Clock, Given
from judge import limits_of, summary, violations
from logs import UnreliableLog
from msgspec import structs
from stack import ADS, START_MS, serving

from adserve.database import partitions
from adserve.database.pools import Pools
from adserve.domain.time import DAY_MS, day_of
from adserve.limits.counters import MemoryCounters
from adserve.limits.rebuild import OVERLAP_MS, rebuild
from adserve.limits.reservations import Grant, Reservation
from adserve.store.journal import Journal

DECISIONS = int(os.environ.get("ADSERVE_CAPS_DECISIONS", "6000"))
LIVES = max(4, DECISIONS // 25_000)


async def parts_of(checkpoint: list[bytes]) -> Any:
    for part in checkpoint:
        yield part


async def lived(
    make: Callable[[int], MemoryCounters], log: Any, decisions: int, lives: int, seed: int = 1
) -> list[Any]:
    """Several lives of a process: each ends with a crash, and the next begins from a checkpoint and the log. Answers the
    events that are stored in the end."""
    chance = random.Random(seed)
    clock, given = Clock(), deque[Given](maxlen=REMEMBERED)
    checkpoint: list[bytes] = []
    taken_at_ms = clock()
    placed = repeated = 0
    for epoch in range(lives):
        counters = make(epoch)
        since_ms = taken_at_ms - OVERLAP_MS
        await rebuild(counters, parts_of(checkpoint), log.since(since_ms), since_ms, lambda _: None)

        def now_and_then(counters: MemoryCounters = counters) -> None:
            nonlocal checkpoint, taken_at_ms
            if chance.random() < 0.2:
                counters.sweep(clock())
            if chance.random() < 0.2:
                checkpoint, taken_at_ms = list(counters.dump()), clock()

        clients = Clients(clock, chance, given)
        async with serving(counters, log, clock, chance) as stack:
            await clients.use(stack, decisions // lives, now_and_then)
        placed += clients.placed
        repeated += clients.repeated
        assert not clients.unanswered
    assert placed > decisions / 4
    assert repeated > decisions / 100
    return [event async for event in log.since(0)]


@pytest.mark.timeout(14_400)
async def test_no_window_of_any_viewer_holds_more_than_its_cap(tell: Callable[[str], None]) -> None:
    begun = time.monotonic()
    stored = await lived(MemoryCounters, UnreliableLog(random.Random(2)), DECISIONS, LIVES)
    took_s = time.monotonic() - begun
    found = violations(limits_of(ADS), stored)
    tell(f"{DECISIONS:,} decisions in {took_s:.0f} s, {LIVES} lives, {summary(stored, found)}")
    assert found == []


async def test_nor_when_postgresql_stores_the_events(pools: Pools) -> None:
    async with pools.owner.acquire() as connection:
        await partitions.ensure(connection, day_of(START_MS - DAY_MS), day_of(START_MS + 60 * DAY_MS))
    stored = await lived(MemoryCounters, Journal(pools.recorder), 800, 2)
    assert len(stored) > 400
    assert violations(limits_of(ADS), stored) == []


class OneMore(MemoryCounters):
    """Admits one more than the cap."""

    async def reserve(self, viewer: bytes, ask: Reservation, now_ms: int, wait_ms: int = 0) -> Grant:
        candidates = [
            one._replace(rules=tuple(rule._replace(most=rule.most + 1) for rule in one.rules))
            for one in ask.candidates
        ]
        return await super().reserve(viewer, structs.replace(ask, candidates=candidates), now_ms)


class ReadsThenWrites(MemoryCounters):
    """Decides by what it has read, and writes when others have had their turn."""

    async def reserve(self, viewer: bytes, ask: Reservation, now_ms: int, wait_ms: int = 0) -> Grant:
        before = self._packed(viewer)
        grant = await super().reserve(viewer, ask, now_ms)
        new = self._packed(viewer).removeprefix(before)
        self._keep(viewer, before)
        await asyncio.sleep(0)
        self._keep(viewer, self._packed(viewer) + new)
        return grant


@pytest.mark.parametrize("broken", [OneMore, ReadsThenWrites])
async def test_control_broken_counters_are_caught(broken: type[MemoryCounters]) -> None:
    stored = await lived(broken, UnreliableLog(random.Random(2)), 3_000, 1)
    assert violations(limits_of(ADS), stored) != []
