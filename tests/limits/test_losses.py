"""What a Redis has lost, and says nothing of."""

from collections.abc import Callable, Iterable
from contextlib import suppress

import pytest
import redis
from counting import START_MS, capped, reserve_one, ticket_id
from keepers import keeping
from redis_servers import needs_redis

from adserve.store import shared_counters
from adserve.store.redis_node import Address, Login, open_master
from adserve.store.redis_nodes import NODE_KEY, SLOTS, Nodes, Place

pytestmark = needs_redis


class Masters:
    """Databases of one server."""

    def __init__(self, count: int) -> None:
        self.count = count

    async def connect(
        self, place: Place, _known: Iterable[Address], on_trouble: Callable[[str], None]
    ) -> Nodes:
        nodes = [
            await open_master(place.seeds[0], Login(database=number), on_trouble)
            for number in range(self.count)
        ]
        for node in nodes:
            node.token_key = NODE_KEY.encode()
        return Nodes(nodes, nodes[:1] * SLOTS)


async def test_masters_one_of_whom_is_gone_are_not_believed(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cluster that lost one without a replica may give its slots, which are empty now, to the others."""
    masters = Masters(2)
    monkeypatch.setattr(shared_counters, "connect_all", masters.connect)
    async with keeping(redis_url) as keeper:
        await keeper.step(START_MS)
        assert keeper.detail == "epoch 1, 2 in redis"
        masters.count = 1
        keeper._drop("one is gone")
        await keeper.step(START_MS)
        assert keeper.detail == "epoch 2, 1 in redis"


async def test_a_server_that_has_evicted_keys_is_not_believed_when_it_does_so_no_more(redis_url: str) -> None:
    ad = capped(1)
    async with keeping(redis_url) as keeper:
        with redis.Redis.from_url(redis_url) as client:
            await keeper.step(START_MS)
            assert await reserve_one(keeper.counters, ad, 1)
            assert await keeper.counters.confirm(ad.ticket(ticket_id(1)), START_MS, START_MS)
            client.config_set("maxmemory-policy", "volatile-lru")
            client.config_set("maxmemory", 1)
            with suppress(redis.ResponseError):  # all that can go is gone, and it is still too much
                client.set("other", "value")
            client.config_set("maxmemory", 0)
            client.config_set("maxmemory-policy", "noeviction")
            assert not client.keys("ads:*")
            await keeper.step(START_MS)
            await keeper.step(START_MS)
        assert keeper.detail == "epoch 2, 1 in redis"
