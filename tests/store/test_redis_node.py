"""A connection to Redis that is given up before it is of use is closed."""

import asyncio

from adserve.store.redis_node import Address, Login, open_master


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
        await asyncio.wait_for(closed.wait(), 2)
