"""Shared counters as these tests use them: emptied, and given an epoch, by the first thing that they are asked."""

from typing import Any

from waiting import PATIENCE_MS

from adserve.store.counters import WAIT_MS, MemoCodec, RedisCounters
from adserve.store.redis_nodes import connect_all, place_of

TEXT = MemoCodec(lambda memo: [str(memo).encode()], lambda parts, _grant: parts[0].decode())


class FreshCounters(RedisCounters):
    def __init__(self, url: str, epoch: int) -> None:
        super().__init__(TEXT)
        self.epoch = epoch
        self._url = url

    async def _ask(
        self, function: str, viewer: bytes, request: str | None, wait_ms: int, *given: bytes | int
    ) -> Any:
        """Who does not say how long they wait do so for as long as the machine stalls."""
        if self.nodes is None:
            await self.open()
        patience_ms = PATIENCE_MS if wait_ms == WAIT_MS else wait_ms
        return await super()._ask(function, viewer, request, patience_ms, *given)

    async def open(self) -> None:
        self.nodes = await connect_all(place_of(self._url), (), lambda _trouble: None)
        for node in self.nodes.all:
            node.token = b"%d" % self.epoch
            await node.call(("FLUSHALL",), PATIENCE_MS)
            await node.call(("SET", node.token_key, node.token), PATIENCE_MS)

    def close(self) -> None:
        if self.nodes is not None:
            self.nodes.close()
