import asyncio
import threading
from typing import Any, NamedTuple

import pytest
from market import EVERYBODY, NOW_MS, ToldRates, make_ad, make_ask
from msgspec.structs import replace

from adserve.catalogue.snapshot import SNAPSHOT_MAX_AGE_MS, Snapshot
from adserve.domain.ids import AdId
from adserve.domain.slots import NoFill
from adserve.selection.gates import first_closed
from adserve.selection.state import LiveView
from adserve.settings import Surface


class Switch(NamedTuple):
    switch_version: int
    paused: bool = False


def snapshot(version: int, *ads: int) -> Snapshot:
    return Snapshot(version, tuple(make_ad(number) for number in ads), {"status": EVERYBODY})


@pytest.fixture
def live() -> LiveView:
    return LiveView({"status": Surface()}, ToldRates())


def test_there_is_no_view_before_the_first_snapshot(live: LiveView) -> None:
    with pytest.raises(RuntimeError, match="no snapshot"):
        live.current()


async def test_a_snapshot_is_compiled_once_and_then_only_confirmed(live: LiveView) -> None:
    first = snapshot(1, 1, 2)
    await live.publish(first, Switch(1), NOW_MS)
    compiled = live.current().surfaces
    await live.publish(first, Switch(1), NOW_MS + 1_000)
    assert live.current().surfaces is compiled
    assert live.current().fresh_at_ms == NOW_MS + 1_000
    await live.publish(snapshot(2, 3), Switch(1), NOW_MS + 2_000)
    assert [compiled.ad.id for compiled in live.current().surfaces["status"].ads] == [3]


async def test_new_rates_hold_from_the_next_publication_on(live: LiveView) -> None:
    known = snapshot(1, 1, 2)
    await live.publish(known, Switch(1), NOW_MS)
    for newest, rate in ((known, 0.02), (snapshot(2, 2, 3), 0.03)):
        before, rates = live.current(), ToldRates(otherwise=rate)
        live.predict_by(rates)
        assert live.current() is before
        await live.publish(newest, Switch(1), NOW_MS)
        assert live.current().rates is rates
        assert live.current().surfaces["status"].prepared[0].tolist() == [rate, rate]


async def test_an_unconfirmed_snapshot_serves_no_ads(live: LiveView) -> None:
    await live.publish(snapshot(1, 1), Switch(1), NOW_MS)
    late_ms = NOW_MS + SNAPSHOT_MAX_AGE_MS + 1
    assert first_closed(make_ask(), live.current(), late_ms - 1) is None
    assert first_closed(make_ask(), live.current(), late_ms) is NoFill.DEGRADED
    await live.publish(live.current().snapshot, Switch(1), late_ms)
    assert first_closed(make_ask(), live.current(), late_ms) is None


async def test_the_operators_switch_pauses_and_resumes(live: LiveView) -> None:
    known = snapshot(1, 1)
    for version, paused in ((1, False), (2, True), (3, False)):
        await live.publish(known, Switch(version, paused), NOW_MS)
        assert live.current().paused is paused


async def test_a_local_pause_holds_until_the_switch_moves(live: LiveView) -> None:
    known = snapshot(1, 1)
    await live.publish(known, Switch(4), NOW_MS)
    live.pause()
    assert live.current().paused
    for newest in (known, snapshot(2, 1)):
        await live.publish(newest, Switch(4), NOW_MS)
        assert live.current().paused, "the same switch: still paused here"
    await live.publish(known, Switch(5), NOW_MS)
    assert not live.current().paused


async def test_a_local_pause_during_a_compilation_is_not_lost(
    live: LiveView, monkeypatch: pytest.MonkeyPatch
) -> None:
    await live.publish(snapshot(1, 1), Switch(1), NOW_MS)
    compiling, go_on = threading.Event(), threading.Event()
    compile_snapshot = live._compile

    def slowly(*given: Any) -> object:
        compiling.set()
        assert go_on.wait(5)
        return compile_snapshot(*given)

    monkeypatch.setattr(live, "_compile", slowly)
    publishing = asyncio.create_task(live.publish(snapshot(2, 1), Switch(1), NOW_MS))
    await asyncio.to_thread(compiling.wait, 5)
    live.pause()
    go_on.set()
    await publishing
    assert live.current().snapshot.version == 2
    assert live.current().paused


async def test_a_pause_before_the_first_snapshot_holds_until_the_switch_moves(live: LiveView) -> None:
    live.pause()
    await live.publish(snapshot(1, 1), Switch(4), NOW_MS)
    assert live.current().paused
    live.obey(Switch(5))
    assert not live.current().paused


async def test_a_switch_that_was_read_before_a_later_one_is_not_obeyed(live: LiveView) -> None:
    await live.publish(snapshot(1, 1), Switch(1), NOW_MS)
    live.obey(Switch(2, True))
    await live.publish(snapshot(2, 1), Switch(1), NOW_MS)
    assert live.current().paused


async def test_qualities_lower_what_ads_are_worth(live: LiveView) -> None:
    known = snapshot(1, 1, 2)
    await live.publish(known, Switch(1), NOW_MS)
    await live.publish(replace(known, qualities={AdId(2): 0.25}), Switch(1), NOW_MS)
    first, second = live.current().surfaces["status"].fixed_values
    assert second == first / 4
