"""Hears PostgreSQL's notifications, so that a change is applied at once and not at the next poll."""

import asyncio
from collections.abc import Mapping

import asyncpg


class Listener:
    """Sets the event of a channel when it is notified. A lost connection ends `listen`; polls go on meanwhile."""

    def __init__(self, url: str, wakes: Mapping[str, asyncio.Event]) -> None:
        self._url = url
        self._wakes = wakes

    async def listen(self) -> None:
        connection = await asyncpg.connect(self._url, timeout=5)
        lost = asyncio.Event()
        connection.add_termination_listener(lambda _: lost.set())
        try:
            for channel in self._wakes:
                await connection.add_listener(channel, self._heard)
            for wake in self._wakes.values():
                wake.set()  # what was notified before we listened
            await lost.wait()
        finally:
            connection.terminate()
        raise ConnectionError("the connection that listens for changes was lost")

    def _heard(self, _connection: object, _pid: int, channel: str, _payload: object) -> None:
        self._wakes[channel].set()
