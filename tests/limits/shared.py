"""Shared counters as these tests use them: emptied, and given an epoch, by the first thing that they are asked."""

from typing import Any

from adserve.store.counters import MemoCodec, RedisCounters
from adserve.store.redis_nodes import connect_all, place_of

TEXT = MemoCodec(lambda memo: [str(memo).encode()], lambda parts, _grant: parts[0].decode())


class FreshCounters(RedisCounters):
    def __init__(self, url: str, epoch: int) -> None:
        super().__init__(TEXT)
        self.epoch = epoch
        self._url = url

    async def _ask(self, *given: Any) -> Any:
        if self.nodes is None:
            await self.open()
        return await super()._ask(*given)

    async def open(self) -> None:
        self.nodes = await connect_all(place_of(self._url), (), lambda _trouble: None)
        for node in self.nodes.all:
            node.token = b"%d" % self.epoch
            await node.call(("FLUSHALL",), 1_000)
            await node.call(("SET", node.token_key, node.token), 1_000)

    def close(self) -> None:
        if self.nodes is not None:
            self.nodes.close()
