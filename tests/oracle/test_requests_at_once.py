"""A request that comes twice at the same moment, to two processes that share their counters, is decided once."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from logs import UnreliableLog
from msgspec import structs
from process import TOKEN
from redis_servers import RedisCluster, RedisServer, needs_redis
from stack import START_MS, Stack, serving

from adserve.domain.slots import Ask, Context, Viewer
from adserve.domain.time import DAY_MS
from adserve.limits.rules import ALL
from adserve.selection.decision import Decision, RequestReused
from adserve.selection.memo import decode_offer, encode_offer
from adserve.store.counters import MemoCodec, RedisCounters
from adserve.store.redis_nodes import connect_all, place_of

pytestmark = needs_redis
VIEWERS = 20
TIMES = 2
"""The second time each process knows what the viewer has seen, and does not ask before it decides."""


@pytest.fixture(scope="module", params=[RedisServer, RedisCluster], ids=["redis", "cluster"])
def server(request: pytest.FixtureRequest) -> Iterator[Any]:
    started = request.param()
    yield started
    started.end()


@pytest.fixture
def redis_url(server: Any) -> str:
    """Of an empty one."""
    server.run("FLUSHALL")
    return str(server.url)


class LooksOnlyFirst(RedisCounters):
    """A broken twin: whether the request was answered it asks before it decides, not when it reserves."""

    async def reserve(self, viewer: bytes, ask: Any, *given: Any) -> Any:
        return await super().reserve(viewer, structs.replace(ask, request=None), *given)


@asynccontextmanager
async def processes(kind: type[RedisCounters], url: str) -> AsyncIterator[list[tuple[Stack, RedisCounters]]]:
    async with AsyncExitStack() as running:
        made = []
        for seed in range(2):
            counters = kind(MemoCodec(encode_offer, decode_offer))
            counters.nodes = await connect_all(place_of(url), (), lambda _trouble: None)
            running.callback(counters.nodes.close)
            for node in counters.nodes.all:
                node.token = TOKEN
                await node.call(("SET", node.token_key, TOKEN), 1_000)
            chance = random.Random(seed)
            log = UnreliableLog(chance)
            made.append(
                (
                    await running.enter_async_context(serving(counters, log, lambda: START_MS, chance)),
                    counters,
                )
            )
        yield made


def ask_of(viewer: int, request: str, digest: bytes = b"body") -> Ask:
    pseudonym = f"viewer {viewer}".encode().ljust(16, b".")[::-1]
    return Ask(
        viewer=Viewer(str(viewer), pseudonym, pseudonym), surface="status", feed_length=30, authors=None, max_ads=3,
        context=Context(), deadline_ms=60_000, ticket_ttl_s=3_600, request=request, digest=digest,
    )  # fmt: skip  # laid out as rows


def told(decision: Decision) -> tuple[Any, ...]:
    """What the caller hears of it."""
    placed = [(placement.position, placement.ad.id, placement.token) for placement in decision.placements]
    return decision.decision, placed, decision.no_fill


async def twice_at_once(kind: type[RedisCounters], url: str) -> None:
    async with processes(kind, url) as ((first, counters), (second, _)):
        placed = 0
        for time in range(TIMES):
            for viewer in range(VIEWERS):
                ask = ask_of(viewer, f"request {time}")
                one, other = await asyncio.gather(first.slots.answer(ask), second.slots.answer(ask))
                assert told(one) == told(other)
                placed += len(one.placements)
        asked = [ask_of(viewer, "").viewer.cap for viewer in range(VIEWERS)]
        held = [(await counters.usage(viewer, [(ALL, DAY_MS)], START_MS))[0] for viewer in asked]
        assert sum(held) == placed > VIEWERS * TIMES


async def test_both_get_the_same_decision_and_its_ads_are_reserved_once(redis_url: str) -> None:
    await twice_at_once(RedisCounters, redis_url)


async def test_control_a_process_that_looks_only_before_it_decides_decides_again(redis_url: str) -> None:
    with pytest.raises(AssertionError):
        await twice_at_once(LooksOnlyFirst, redis_url)


async def test_of_two_bodies_with_one_id_only_one_is_answered(redis_url: str) -> None:
    async with processes(RedisCounters, redis_url) as ((first, _), (second, _)):
        for viewer in range(VIEWERS):
            answers = await asyncio.gather(
                first.slots.answer(ask_of(viewer, "request", b"one")),
                second.slots.answer(ask_of(viewer, "request", b"another")),
                return_exceptions=True,
            )
            refused = [one for one in answers if isinstance(one, RequestReused)]
            assert len(refused) == 1
