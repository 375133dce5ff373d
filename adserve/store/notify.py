"""Hears PostgreSQL's notifications, so that a change is applied at once and not at the next poll."""

import asyncio
from collections.abc import Mapping

import asyncpg

CONNECT_TIMEOUT_S = 5


class Listener:
    """Sets the event of a channel when it is notified. While it is not connected, polls go on."""

    def __init__(self, url: str, wakes: Mapping[str, asyncio.Event]) -> None:
        self._url = url
        self._wakes = wakes
        self._connection: asyncpg.Connection | None = None

    async def step(self, _now_ms: int) -> None:
        """Connects when there is no connection, or when it was lost."""
        if self._connection is not None and not self._connection.is_closed():
            return
        connection = await asyncpg.connect(self._url, timeout=CONNECT_TIMEOUT_S)
        try:
            for channel in self._wakes:
                await connection.add_listener(channel, self._heard)
        except BaseException:
            connection.terminate()
            raise
        self._connection = connection
        for wake in self._wakes.values():
            wake.set()  # what was notified before we listened

    def close(self) -> None:
        if self._connection is not None:
            self._connection.terminate()

    def _heard(self, _connection: object, _pid: int, channel: str, _payload: object) -> None:
        self._wakes[channel].set()
