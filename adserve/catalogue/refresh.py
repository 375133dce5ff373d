"""Keeps the snapshot no older than a poll, and says so to whoever serves from it."""

from collections.abc import Awaitable, Callable
from typing import Protocol

from adserve.catalogue.snapshot import Snapshot


class State(Protocol):
    @property
    def catalogue_version(self) -> int: ...

    @property
    def switch_version(self) -> int: ...

    @property
    def paused(self) -> bool: ...


class Source(Protocol):
    async def state(self) -> State: ...

    async def load(self, now_ms: int) -> Snapshot: ...

    async def beat(self, switch_version: int) -> None: ...


Publish = Callable[[Snapshot, State, int], Awaitable[None]]


class Refresh:
    """`publish(snapshot, state, confirmed_at_ms)` is awaited before the replica reports the switch as applied."""

    def __init__(self, source: Source, publish: Publish) -> None:
        self._source = source
        self._publish = publish
        self._snapshot: Snapshot | None = None
        self._confirmed_at_ms = 0

    async def step(self, now_ms: int) -> None:
        """One poll: loads the catalogue again if it has changed. `now_ms` is when the poll began."""
        state = await self._source.state()
        if self._snapshot is None or self._snapshot.version != state.catalogue_version:
            if self._snapshot is not None:  # the switch waits for no catalogue
                await self._publish(self._snapshot, state, self._confirmed_at_ms)
            self._snapshot = await self._source.load(now_ms)
        self._confirmed_at_ms = now_ms
        await self._publish(self._snapshot, state, now_ms)
        await self._source.beat(state.switch_version)
