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
    happened: list[tuple[object, ...]] = field(default_factory=list)

    async def state(self) -> Known:
        return self.known

    async def load(self, known: Snapshot, now_ms: int) -> Snapshot:
        self.happened.append(("load", known.version, now_ms))
        if self.broken:
            raise ConnectionError("the catalogue cannot be read")
        return Snapshot(self.known.catalogue_version, (), {})

    async def beat(self, switch_version: int) -> None:
        self.happened.append(("beat", switch_version))

    async def publish(self, snapshot: Snapshot, state: State, confirmed_at_ms: int) -> None:
        self.happened.append(("publish", snapshot.version, state.switch_version, confirmed_at_ms))

    def since(self) -> list[tuple[object, ...]]:
        happened, self.happened = self.happened, []
        return happened


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def refresh(source: Source) -> Refresh:
    return Refresh(source, source.publish)


async def test_the_first_poll_loads_publishes_and_then_reports(source: Source, refresh: Refresh) -> None:
    await refresh.step(100)
    assert source.since() == [("load", 0, 100), ("publish", 1, 1, 100), ("beat", 1)]


async def test_a_poll_without_news_confirms_the_snapshot(source: Source, refresh: Refresh) -> None:
    await refresh.step(100)
    source.since()
    await refresh.step(200)
    assert source.since() == [("publish", 1, 1, 200), ("beat", 1)]


async def test_the_switch_does_not_wait_for_a_new_catalogue(source: Source, refresh: Refresh) -> None:
    await refresh.step(100)
    source.since()
    source.known = Known(catalogue_version=2, switch_version=5)
    await refresh.step(200)
    assert source.since() == [("publish", 1, 5, 100), ("load", 1, 200), ("publish", 2, 5, 200), ("beat", 5)]


async def test_an_old_snapshot_is_not_confirmed_while_the_new_one_cannot_be_read(
    source: Source, refresh: Refresh
) -> None:
    await refresh.step(100)
    source.known, source.broken = Known(catalogue_version=2, switch_version=2, paused=True), True
    for now_ms in (200, 300):
        source.since()
        with pytest.raises(ConnectionError):
            await refresh.step(now_ms)
        assert source.since() == [("publish", 1, 2, 100), ("load", 1, now_ms)]
    source.broken = False
    await refresh.step(400)
    assert source.since()[-2:] == [("publish", 2, 2, 400), ("beat", 2)]


async def test_other_qualities_make_another_snapshot_of_the_same_ads() -> None:
    published: list[Snapshot] = []

    async def publish(snapshot: Snapshot, _state: State, _confirmed_at_ms: int) -> None:
        published.append(snapshot)

    source = Source()
    refresh = Refresh(source, publish)
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
