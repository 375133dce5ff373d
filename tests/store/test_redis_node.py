"""When a connection to Redis is given up, and that one which was given up before it is of use is closed."""

import asyncio

import pytest
from waiting import happens

from adserve.store import redis_nodes
from adserve.store.redis_node import SILENT_S, Address, Login, Node, open_master, open_node

CALLS = 10


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


async def test_a_node_is_given_up_when_it_is_silent_for_long_and_not_when_a_call_was_too_short() -> None:
    assert await happens(lambda: is_given_up(silent_s=SILENT_S * 3))
    assert await happens(lambda: is_waited_for(silent_s=SILENT_S / 2))


async def is_given_up(silent_s: float) -> bool:
    return set(await troubles_of(silent_s)) == {"does not answer"}


async def is_waited_for(silent_s: float) -> bool:
    return not await troubles_of(silent_s)


async def troubles_of(silent_s: float) -> list[str]:
    """What is said of a node that answers only then; some calls are over before, some are not."""
    troubles: list[str] = []
    closed = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1_000)
        await asyncio.sleep(silent_s)
        writer.write(b"+OK\r\n" * CALLS)
        assert await reader.read() == b""
        writer.close()
        closed.set()

    async with await asyncio.start_server(slow, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        node = await open_node(Address("127.0.0.1", port), Login(), troubles.append)
        try:
            calls = [node.call(("PING",), (nth + 1) * round(SILENT_S * 200)) for nth in range(CALLS)]
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
        finally:
            node.close()
            await closed.wait()
    assert isinstance(outcomes[0], TimeoutError)
    return troubles
