import asyncio
from dataclasses import dataclass, field
from typing import NamedTuple

import pytest

from adserve.catalogue.refresh import Refresh, State
from adserve.catalogue.snapshot import Snapshot
from adserve.domain.ids import AdId


class Known(NamedTuple):
    catalogue_version: int = 1
    switch_version: int = 1
    paused: bool = False


@dataclass
class Source:
    """A catalogue that can be changed and broken; `happened` lists what the refresh did, in order."""

    known: Known = field(default_factory=Known)
    broken: bool = False
    readable: asyncio.Event = field(default_factory=asyncio.Event)
    happened: list[tuple[object, ...]] = field(default_factory=list)

    async def state(self) -> Known:
        return self.known

    async def load(self, known: Snapshot, now_ms: int) -> Snapshot:
        self.happened.append(("load", known.version, now_ms))
        await self.readable.wait()
        if self.broken:
            raise ConnectionError("the catalogue cannot be read")
        return Snapshot(self.known.catalogue_version, (), {})

    async def beat(self, switch_version: int) -> None:
        self.happened.append(("beat", switch_version))

    async def publish(self, snapshot: Snapshot, state: State, confirmed_at_ms: int) -> None:
        self.happened.append(("publish", snapshot.version, state.switch_version, confirmed_at_ms))

    def obey(self, state: State) -> None:
        self.happened.append(("obey", state.switch_version, state.paused))

    def since(self) -> list[tuple[object, ...]]:
        happened, self.happened = self.happened, []
        return happened


@pytest.fixture
def source() -> Source:
    source = Source()
    source.readable.set()
    return source


@pytest.fixture
def refresh(source: Source) -> Refresh:
    return Refresh(source, source.publish, source.obey)


async def test_the_first_poll_loads_and_publishes(source: Source, refresh: Refresh) -> None:
    await refresh.step(100)
    assert source.since() == [("load", 0, 100), ("publish", 1, 1, 100)]


async def test_a_poll_without_news_confirms_the_snapshot(source: Source, refresh: Refresh) -> None:
    await refresh.step(100)
    source.since()
    await refresh.step(200)
    assert source.since() == [("publish", 1, 1, 200)]


async def test_the_switch_is_obeyed_and_then_reported_while_a_catalogue_is_read(
    source: Source, refresh: Refresh
) -> None:
    await refresh.step(100)
    source.since()
    source.known, source.readable = Known(catalogue_version=2, switch_version=4), asyncio.Event()
    reading = asyncio.create_task(refresh.step(200))
    await asyncio.sleep(0)
    source.known = Known(catalogue_version=2, switch_version=5, paused=True)
    await refresh.switch(300)
    assert source.since() == [("load", 1, 200), ("obey", 5, True), ("beat", 5)]
    source.readable.set()
    await reading
    assert source.since() == [("publish", 2, 4, 200)]


async def test_an_old_snapshot_is_not_confirmed_while_the_new_one_cannot_be_read(
    source: Source, refresh: Refresh
) -> None:
    await refresh.step(100)
    source.known, source.broken = Known(catalogue_version=2, switch_version=2, paused=True), True
    for now_ms in (200, 300):
        source.since()
        with pytest.raises(ConnectionError):
            await refresh.step(now_ms)
        assert source.since() == [("load", 1, now_ms)]
    source.broken = False
    await refresh.step(400)
    assert source.since()[-1] == ("publish", 2, 2, 400)


async def test_other_qualities_make_another_snapshot_of_the_same_ads(source: Source) -> None:
    published: list[Snapshot] = []

    async def publish(snapshot: Snapshot, _state: State, _confirmed_at_ms: int) -> None:
        published.append(snapshot)

    refresh = Refresh(source, publish, source.obey)
    await refresh.step(100)
    for now_ms in (200, 300):
        refresh.weigh({AdId(3): 0.5})
        await refresh.step(now_ms)
    first, second, third = published
    assert (first.qualities, second.qualities) == ({}, {3: 0.5})
    assert second.ads is first.ads
    assert third is second
    source.known = Known(catalogue_version=2)
    await refresh.step(400)
    assert published[-1].qualities == {3: 0.5}, "they outlive a change of the catalogue"
