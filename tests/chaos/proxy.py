"""A TCP proxy that does what networks do: drops answers, delays, and swallows everything."""

import asyncio
import contextlib
import random
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

CHUNK_BYTES = 65_536


class Proxy:
    """`drops` is the share of requests whose answer never arrives: the connection is closed instead. `delay_s` is added to
    each direction. While it `swallows`, nothing passes either way and connections stay open; they end with it."""

    def __init__(self, target_port: int, chance: random.Random) -> None:
        self.port = 0
        self.drops = 0.0
        self.delay_s = 0.0
        self.swallows = False
        self.dropped = 0
        self._target_port = target_port
        self._chance = chance
        self._open: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Proxy"]:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for connection in self._open:
                connection.cancel()
            await asyncio.gather(*self._open, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await self._pass(reader, writer)
        finally:
            writer.close()
            self._open.discard(task)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        doomed = asyncio.Event()
        ways = [
            asyncio.create_task(self._ask(reader, there_writer, doomed)),
            asyncio.create_task(self._answer(there_reader, writer, doomed)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            there_writer.close()

    async def _ask(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, doomed: asyncio.Event
    ) -> None:
        while data := await reader.read(CHUNK_BYTES):
            if self.drops and self._chance.random() < self.drops:
                doomed.set()
            await self._let_through(writer, data)

    async def _answer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, doomed: asyncio.Event
    ) -> None:
        while data := await reader.read(CHUNK_BYTES):
            if doomed.is_set():
                self.dropped += 1
                return
            await self._let_through(writer, data)

    async def _let_through(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        if self.swallows:
            while self.swallows:  # noqa: ASYNC110 - set by another thread
                await asyncio.sleep(0.05)
            raise ConnectionResetError("what was sent is gone")
        writer.write(data)
        await writer.drain()


@contextmanager
def proxied(target_port: int) -> Iterator[Proxy]:
    """In a thread of its own, for as long as a fixture lasts."""
    proxy, started, ended = Proxy(target_port, random.Random(4)), threading.Event(), threading.Event()

    async def run() -> None:
        async with proxy.running():
            started.set()
            while not ended.is_set():  # noqa: ASYNC110 - set by another thread
                await asyncio.sleep(0.05)

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    started.wait()
    try:
        yield proxy
    finally:
        ended.set()
        thread.join()
