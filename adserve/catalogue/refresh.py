"""Keeps the snapshot and the switch no older than a poll, and says so to whoever serves by them."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from msgspec.structs import replace

from adserve.catalogue.snapshot import EMPTY, Snapshot
from adserve.domain.ids import AdId


class State(Protocol):
    @property
    def catalogue_version(self) -> int: ...

    @property
    def switch_version(self) -> int: ...

    @property
    def paused(self) -> bool: ...


class Source(Protocol):
    async def state(self) -> State: ...

    async def load(self, known: Snapshot, now_ms: int) -> Snapshot:
        """The newest snapshot; reads what is new to `known`."""
        ...

    async def beat(self, switch_version: int) -> None: ...


Publish = Callable[[Snapshot, State, int], Awaitable[None]]
Obey = Callable[[State], None]


class Refresh:
    """`publish(snapshot, state, confirmed_at_ms)` takes as long as a catalogue does; `obey(state)`, the switch alone, is called
    before the replica reports it as applied."""

    def __init__(self, source: Source, publish: Publish, obey: Obey) -> None:
        self._source = source
        self._publish = publish
        self._obey = obey
        self._snapshot: Snapshot | None = None
        self._qualities: Mapping[AdId, float] = {}

    def weigh(self, qualities: Mapping[AdId, float]) -> None:
        """Where these differ from those before, the next poll publishes a snapshot with them."""
        if qualities != self._qualities:
            self._qualities = qualities

    async def step(self, now_ms: int) -> None:
        """One poll: reads what has changed in the catalogue. `now_ms` is when the poll began."""
        state = await self._source.state()
        snapshot = self._snapshot
        if snapshot is None or snapshot.version != state.catalogue_version:
            snapshot = await self._source.load(snapshot or EMPTY, now_ms)
        if snapshot.qualities is not self._qualities:
            snapshot = replace(snapshot, qualities=self._qualities)
        self._snapshot = snapshot
        await self._publish(snapshot, state, now_ms)

    async def switch(self, _now_ms: int) -> None:
        """One poll of the switch, which waits for no catalogue."""
        state = await self._source.state()
        self._obey(state)
        await self._source.beat(state.switch_version)
