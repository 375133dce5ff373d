"""All masters of a Redis, and which of them has a viewer: one, or those of a cluster."""

import asyncio
from binascii import crc_hqx
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from adserve.limits.counters import CountersAway
from adserve.store.redis_node import CONNECT_MS, Address, Login, Node, open_master, open_node

SLOTS = 16_384
PORT_DEFAULT = 6_379
NODE_KEY = "adserve:counters"


class Place(NamedTuple):
    """A `redis_url` taken apart."""

    seeds: tuple[Address, ...]
    login: Login
    cluster: bool


def place_of(url: str) -> Place:
    parts = urlsplit(url)
    netloc = parts.netloc.rpartition("@")[2]
    seeds = []
    for one in netloc.split(","):
        seed = urlsplit(f"//{one}")
        seeds.append(Address(seed.hostname or "localhost", seed.port or PORT_DEFAULT))
    first = urlsplit(f"//{parts.netloc.split(',')[0]}")
    login = Login(
        (first.username and unquote(first.username)) or None,
        first.password and unquote(first.password),
        int(parts.path.strip("/") or 0),
        parts.scheme == "rediss",
    )
    return Place(tuple(seeds), login, parts.scheme == "redis+cluster")


def slot_of(tag: bytes) -> int:
    return crc_hqx(tag, 0) % SLOTS


class Nodes:
    """Connections to all masters. `by_slot` is empty where there is but one."""

    def __init__(self, all_: Sequence[Node], by_slot: Sequence[Node]) -> None:
        self.all = all_
        self._by_slot = by_slot

    def of(self, tag: bytes) -> Node:
        return self._by_slot[crc_hqx(tag, 0) % SLOTS] if self._by_slot else self.all[0]

    @property
    def alive(self) -> bool:
        return all(node.alive for node in self.all)

    def close(self) -> None:
        for node in self.all:
            node.close()


async def connect_all(place: Place, known: Iterable[Address], on_trouble: Callable[[str], None]) -> Nodes:
    """Raises CountersAway when one of the masters cannot be reached: its viewers' counts are unknown."""
    if not place.cluster:
        node = await open_master(place.seeds[0], place.login, on_trouble)
        node.token_key = NODE_KEY.encode()
        return Nodes((node,), ())
    ranges = await _ranges(place, known)
    nodes: list[Node] = []

    async def open_(address: Address) -> None:
        nodes.append(await open_master(address, place.login, on_trouble))

    try:
        opened = await asyncio.gather(*map(open_, ranges), return_exceptions=True)
    except BaseException:  # given up, when some of them stand already
        for node in nodes:
            node.close()
        raise
    by_slot: list[Node | None] = [None] * SLOTS
    for node in nodes:
        for first, last in ranges[node.address]:
            by_slot[first : last + 1] = [node] * (last - first + 1)
    served = [node for node in by_slot if node is not None]
    if len(served) < SLOTS:
        for node in nodes:
            node.close()
        failed = [error for error in opened if isinstance(error, Exception)]
        raise failed[0] if failed else CountersAway("the cluster does not serve all slots")
    for node in nodes:
        node.token_key = _token_key(ranges[node.address])
    return Nodes(nodes, served)


def _token_key(ranges: Sequence[tuple[int, int]]) -> bytes:
    """A key that the node with these slots has."""
    number = 0
    while True:
        key = f"{NODE_KEY}:{number}".encode()
        slot = slot_of(key)
        if any(first <= slot <= last for first, last in ranges):
            return key
        number += 1


async def _ranges(place: Place, known: Iterable[Address]) -> dict[Address, list[tuple[int, int]]]:
    """The masters and their slots, as the first node that answers has it."""
    away = CountersAway("no node of the cluster can be reached")
    for seed in dict.fromkeys((*place.seeds, *known)):
        try:
            node = await open_node(seed, place.login, lambda _: None)
        except CountersAway as error:
            away = error
            continue
        try:
            said: list[Any] = await node.call(("CLUSTER", "SLOTS"), CONNECT_MS)
        except (CountersAway, TimeoutError) as error:
            away = CountersAway(str(error))
            continue
        finally:
            node.close()
        ranges: dict[Address, list[tuple[int, int]]] = {}
        for first, last, (host, port, *_), *_ in said:
            ranges.setdefault(Address(host.decode() or seed.host, port), []).append((first, last))
        return ranges
    raise away
