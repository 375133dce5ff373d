"""Who keeps shared counters true, with an event log and epochs in memory: no PostgreSQL is needed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from shared import TEXT

from adserve.metering.errors import JournalAway
from adserve.store.shared_counters import SharedCounters
from adserve.store.wire import Shown


class Log:
    """An event log of what is given. While it is `away`, it cannot tell of hides."""

    def __init__(self, *shown: Shown) -> None:
        self.shown = shown
        self.away = False

    async def shown_since(self, _received_at_ms: int) -> AsyncIterator[Shown]:
        for shown in self.shown:
            yield shown

    async def count_since(self, _received_at_ms: int) -> int:
        return len(self.shown)

    async def hides(self, _since_ms: int, _most: int) -> list[tuple[bytes, int, int]]:
        if self.away:
            raise JournalAway("gone")
        return []


class Epochs:
    def __init__(self) -> None:
        self.number = 0

    async def newest(self) -> int:
        return self.number

    async def open_epoch(self, _now_ms: int) -> int:
        self.number += 1
        return self.number

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[Any]:
        yield self


async def none_pending(_counters: object, _now_ms: int) -> int:
    return 0


@asynccontextmanager
async def keeping(url: str, log: Any = None) -> AsyncIterator[SharedCounters]:
    keeper = SharedCounters(url, TEXT, Epochs(), log or Log(), none_pending)  # type: ignore[arg-type]  # twins of PostgreSQL's sides
    yield keeper
    keeper.close()
    await asyncio.sleep(0)
