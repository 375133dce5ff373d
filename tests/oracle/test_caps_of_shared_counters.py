"""I4 where three processes count in one Redis, which now and then loses everything, judged by the events that were stored."""

import asyncio
import os
import random
import signal
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import pytest
import uvloop
from clients import REMEMBERED, Clients, Clock, Given
from judge import limits_of, summary, violations
from msgspec.structs import replace
from redis_servers import RedisServer, needs_redis
from shared_log import Epochs, SharedLog
from stack import ADS, Stack, serving
from waiting import PATIENCE_S, happens

from adserve.metering.pending import Pending
from adserve.selection.memo import decode_offer, encode_offer
from adserve.store.counters import MemoCodec, RedisCounters
from adserve.store.shared_counters import SharedCounters

pytestmark = needs_redis
DECISIONS = int(os.environ.get("ADSERVE_SHARED_CAPS_DECISIONS", "4000"))
WORLDS = max(1, DECISIONS // 125_000)
"""Each has viewers, events and chance of its own, so that what is put back after a loss grows to what 200 days hold and no more."""
LIVES = max(3, DECISIONS // WORLDS // 25_000)
PROCESSES = 3
STEP_S = 0.02

WAIT_MS = 5_000
SHORT_WAIT_MS = 50

Make = Callable[[str, Epochs, SharedLog], SharedCounters]


class AnyOf:
    """Each call goes to one of them."""

    def __init__(self, parts: Sequence[Any], chance: random.Random) -> None:
        self._parts = parts
        self._chance = chance

    def __getattr__(self, name: str) -> Any:
        return getattr(self._chance.choice(self._parts), name)


class Patient:
    """Deadlines are of the virtual clock, which may jump by days meanwhile; waiting is not."""

    def __init__(self, counters: RedisCounters) -> None:
        self._counters = counters

    def __getattr__(self, name: str) -> Any:
        return getattr(self._counters, name)

    async def recall(self, *asked: Any) -> Any:
        return await self._counters.recall(*asked[:3], WAIT_MS)

    async def reserve(self, *asked: Any) -> Any:
        return await self._counters.reserve(*asked[:3], WAIT_MS)


class AllOf:
    def __init__(self, parts: Sequence[Any]) -> None:
        self._parts = parts

    def expire(self, now_ms: int) -> None:
        for part in self._parts:
            part.expire(now_ms)


def made(url: str, epochs: Any, log: SharedLog) -> SharedCounters:
    async def settle_pending(counters: RedisCounters, now_ms: int) -> int:
        return await Pending(log, counters).settle(counters, now_ms)

    return SharedCounters(url, MemoCodec(encode_offer, decode_offer), epochs, log, settle_pending)


@asynccontextmanager
async def processes(
    make: Make, url: str, epochs: Epochs, log: SharedLog, clock: Clock, chance: random.Random
) -> AsyncIterator[Stack]:
    keepers = [make(url, epochs, log) for _ in range(PROCESSES)]

    async def keep(keeper: SharedCounters) -> None:
        pending = Pending(log, keeper.counters)
        while True:
            await keeper.step(clock())
            await pending.step(clock())
            await asyncio.sleep(STEP_S)

    async with AsyncExitStack() as stack:
        loops = [asyncio.create_task(keep(keeper)) for keeper in keepers]
        for keeper in keepers:
            await asyncio.wait_for(keeper.done.wait(), PATIENCE_S)
        each = [
            await stack.enter_async_context(serving(Patient(one.counters), log, clock, chance))
            for one in keepers
        ]
        try:
            slots, intakes = ([getattr(one, part) for one in each] for part in ("slots", "intake"))
            yield Stack(AnyOf(slots, chance), AnyOf(intakes, chance), AllOf([one.book for one in each]))
        finally:
            for loop in loops:
                loop.cancel()
                with suppress(asyncio.CancelledError):
                    await loop
            for keeper in keepers:
                keeper.close()
            await asyncio.sleep(0)


class Forgetful(Clients):
    """What Redis has lost it cannot answer again."""

    async def _ask_again(self, stack: Stack, asked: Any) -> None:
        await stack.slots.answer(asked.ask)


async def lived(
    make: Make,
    server: RedisServer,
    decisions: int,
    lives: int,
    *,
    lossy: bool,
    seed: int = 1,
    stall: Callable[[], None] | None = None,
) -> SharedLog:
    """Each life of the processes ends with a crash of all of them and of Redis; lossy ones lose it more often."""
    chance = random.Random(seed)
    clock, epochs = Clock(), Epochs()
    log = SharedLog(chance, epochs)
    given = deque[Given](maxlen=REMEMBERED)
    clients = (Forgetful if lossy else Clients)(clock, chance, given)

    def now_and_then() -> None:
        if stall is not None:
            stall()
        if lossy and chance.random() < 0.3:
            server.run("FLUSHALL")

    placed = repeated = unanswered = 0
    for _ in range(lives):
        server.run("FLUSHALL")
        clients = (Forgetful if lossy else Clients)(clock, chance, given)
        async with processes(make, server.url, epochs, log, clock, chance) as stack:
            await clients.use(stack, decisions // lives, now_and_then)
        placed += clients.placed
        repeated += clients.repeated
        unanswered += clients.unanswered
    assert placed > decisions / 8
    assert lossy or repeated > decisions / 100
    assert stall is not None or unanswered <= repeated / 10
    log.unanswered = unanswered
    return log


@pytest.fixture
def server() -> Any:
    started = RedisServer()
    yield started
    started.end()


@pytest.mark.timeout(14_400)
@pytest.mark.parametrize("world", range(WORLDS))
@pytest.mark.parametrize("lossy", [False, True])
def test_no_window_of_any_viewer_holds_more_than_its_cap(
    server: RedisServer, tell: Callable[[str], None], lossy: bool, world: int
) -> None:
    begun, decisions = time.monotonic(), DECISIONS // WORLDS
    log = uvloop.run(lived(made, server, decisions, LIVES, lossy=lossy, seed=world + 1))
    took_s = time.monotonic() - begun
    found = violations(limits_of(ADS), log.stored)
    tell(
        f"{decisions:,} decisions of {PROCESSES} processes in {took_s:.0f} s, {log.kept_pending:,} events pending "
        f"for a time, {summary(log.stored, found)}"
    )
    assert found == []
    assert not lossy or log.kept_pending


class IgnoresLosses(SharedCounters):
    """A broken twin: a server without a token is given one, and counting goes on."""

    async def _begin(self, nodes: Any, now_ms: int) -> int | None:
        for node in nodes.all:
            await node.call(("SET", node.token_key, b"1:%b:1" % node.identity), 1_000)
        return 1

    async def _newest(self, used: int) -> int:
        return 1


async def test_control_counters_that_ignore_a_loss_are_caught(server: RedisServer) -> None:
    def broken(url: str, epochs: Any, log: SharedLog) -> SharedCounters:
        keeper = made(url, epochs, log)
        keeper.__class__ = IgnoresLosses
        return keeper

    log = await lived(broken, server, 3_000, 3, lossy=True)
    assert violations(limits_of(ADS), log.stored) != []


def stalling(server: RedisServer) -> Callable[[], None]:
    """Stops it for longer than a call waits."""

    def stall() -> None:
        server.signal(signal.SIGSTOP)
        asyncio.get_running_loop().call_later(3 * SHORT_WAIT_MS / 1_000, server.signal, signal.SIGCONT)

    return stall


async def test_a_retry_that_redis_is_too_slow_for_gets_its_answer_or_none(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "WAIT_MS", SHORT_WAIT_MS)

    async def some_had_none() -> bool:
        log = await lived(made, server, 1_500, 1, lossy=False, stall=stalling(server))
        assert violations(limits_of(ADS), log.stored) == []
        return log.unanswered > 0

    assert await happens(some_had_none, tries=5)


class ForgetsAnswers(RedisCounters):
    """A broken twin."""

    async def reserve(self, viewer: bytes, ask: Any, *given: Any) -> Any:
        return await super().reserve(viewer, replace(ask, request=None), *given)


async def test_control_counters_that_forget_answers_are_caught(server: RedisServer) -> None:
    def broken(url: str, epochs: Any, log: SharedLog) -> SharedCounters:
        keeper = made(url, epochs, log)
        keeper.counters.__class__ = ForgetsAnswers
        return keeper

    with pytest.raises(AssertionError, match="a retry got another answer"):
        await lived(broken, server, 1_000, 1, lossy=False)
