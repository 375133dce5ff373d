"""One of several processes at once: `python process.py KIND URL BEGUN_S SEED DECISIONS`; answers what it stored, pickled.

KIND is `redis`, for counters in the Redis at URL, or `alone`, for counters that this process shares with nobody.
"""

import pickle
import random
import sys
from collections import deque
from pathlib import Path
from typing import Any

import uvloop
from clients import REMEMBERED, Clients, Given, SpedClock
from logs import UnreliableLog
from stack import serving

from adserve.limits.counters import MemoryCounters
from adserve.selection.memo import decode_offer, encode_offer
from adserve.store.counters import MemoCodec, RedisCounters
from adserve.store.redis_nodes import connect_all, place_of

TOKEN = b"one"


async def shared_counters(url: str) -> RedisCounters:
    counters = RedisCounters(MemoCodec(encode_offer, decode_offer))
    counters.nodes = await connect_all(place_of(url), (), lambda _trouble: None)
    for node in counters.nodes.all:
        node.token = TOKEN
        await node.call(("SET", node.token_key, TOKEN), 1_000)
    return counters


async def main(kind: str, url: str, begun_s: float, seed: int, decisions: int) -> UnreliableLog:
    counters: Any = await shared_counters(url) if kind == "redis" else MemoryCounters(1)
    chance = random.Random(seed)
    clock, log = SpedClock(begun_s), UnreliableLog(chance)
    clients = Clients(clock, chance, deque[Given](maxlen=REMEMBERED))
    async with serving(counters, log, clock, chance) as stack:
        await clients.use(stack, decisions, lambda: None)
    if kind == "redis":
        counters.nodes.close()
    assert clients.placed > decisions / 20
    assert clients.repeated >= 10 * clients.unanswered
    return log


if __name__ == "__main__":
    kind, url, begun_s, seed, decisions, path = sys.argv[1:]
    log = uvloop.run(main(kind, url, float(begun_s), int(seed), int(decisions)))
    Path(path).write_bytes(pickle.dumps(log.stored))
