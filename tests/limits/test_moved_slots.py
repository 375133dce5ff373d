"""Slots of a cluster that are being moved from one master to another."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from counting import START_MS, VIEWER
from keepers import keeping
from redis_servers import needs_redis
from shared import FreshCounters
from waiting import PATIENCE_MS

from adserve.limits.counters import CountersAway
from adserve.store.counters import RedisCounters, tag_of
from adserve.store.redis_node import Node
from adserve.store.redis_nodes import slot_of

pytestmark = needs_redis


@asynccontextmanager
async def moving_the_slot_of(counters: RedisCounters, viewer: bytes) -> AsyncIterator[tuple[Node, Node]]:
    """From one node to another; it is given up in the end."""
    assert counters.nodes is not None
    source, key = counters._place_of(viewer)
    target = next(node for node in counters.nodes.all if node is not source)
    slot = slot_of(tag_of(key))
    for node, how, other in ((target, "IMPORTING", source), (source, "MIGRATING", target)):
        whose = await other.call(("CLUSTER", "MYID"), PATIENCE_MS)
        await node.call(("CLUSTER", "SETSLOT", slot, how, whose), PATIENCE_MS)
    try:
        yield source, target
    finally:
        for node in (source, target):
            await node.call(("CLUSTER", "SETSLOT", slot, "STABLE"), PATIENCE_MS)


async def test_a_slot_that_is_being_moved_is_no_trouble_to_viewers_of_others(cluster_url: str) -> None:
    shared, troubles = FreshCounters(cluster_url, 1), list[str]()
    await shared.open()
    async with moving_the_slot_of(shared, VIEWER) as (source, _):
        source._on_trouble = troubles.append
        other = next(
            viewer
            for viewer in (bytes([nth]) * 16 for nth in range(100))
            if viewer != VIEWER and shared._place_of(viewer)[0] is source
        )
        asked = [shared.recall(viewer, None, START_MS) for viewer in (VIEWER, other)]
        moving, known = await asyncio.gather(*asked, return_exceptions=True)
    assert isinstance(moving, CountersAway)
    assert "ASK" in str(moving)
    assert not isinstance(known, BaseException)
    assert not troubles
    shared.close()
    await asyncio.sleep(0)


async def test_what_a_move_that_was_given_up_left_behind_does_not_keep_the_counters_away(
    cluster_url: str,
) -> None:
    async with keeping(cluster_url) as keeper:
        await keeper.step(START_MS)
        assert keeper.counters.nodes is not None
        _, key = keeper.counters._place_of(VIEWER)
        async with moving_the_slot_of(keeper.counters, VIEWER) as (source, target):
            for command in (("ASKING",), ("SET", key, b"left behind")):
                await target.call(command, PATIENCE_MS)
        await source.call(("DEL", source.token_key), PATIENCE_MS)
        await keeper.step(START_MS)
        assert keeper.detail == "epoch 2, 3 in redis"
