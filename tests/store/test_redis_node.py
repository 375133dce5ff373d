"""A connection to Redis that is given up before it is of use is closed."""

import asyncio

import pytest

from adserve.store import redis_nodes
from adserve.store.redis_node import Address, Login, Node, open_master


async def test_whoever_is_cancelled_while_it_connects_leaves_no_connection() -> None:
    asked, closed = asyncio.Event(), asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"INFO\r\n")
        asked.set()
        assert await reader.read() == b""
        writer.close()
        closed.set()

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        connecting = asyncio.create_task(open_master(Address("127.0.0.1", port), Login(), lambda _: None))
        await asked.wait()
        connecting.cancel()
        await asyncio.wait([connecting])
        await closed.wait()


async def test_whoever_is_cancelled_while_it_connects_to_a_cluster_leaves_none_of_its_nodes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    addresses = [Address("127.0.0.1", port) for port in (1, 2)]
    opened: list[Node] = []
    waiting = asyncio.Event()

    async def ranges(*_: object) -> dict[Address, list[tuple[int, int]]]:
        return {address: [(0, 1)] for address in addresses}

    async def open_(address: Address, *_: object) -> Node:
        if address is addresses[1]:
            waiting.set()
            await asyncio.Event().wait()
        node = Node(address, lambda _: None)
        node.alive = True
        opened.append(node)
        return node

    monkeypatch.setattr(redis_nodes, "_ranges", ranges)
    monkeypatch.setattr(redis_nodes, "open_master", open_)
    place = redis_nodes.place_of("redis+cluster://127.0.0.1:1")
    connecting = asyncio.create_task(redis_nodes.connect_all(place, (), lambda _: None))
    await waiting.wait()
    connecting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await connecting
    assert [node.alive for node in opened] == [False]
