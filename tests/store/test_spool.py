import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import nullcontext, suppress
from pathlib import Path
from threading import Event

import pytest
from msgspec import structs
from spooling import (
    NOW_MS,
    SPOOL_BYTES,
    TICKET,
    Cut,
    Early,
    Unsynced,
    acknowledged,
    disk,
    event,
    keeping,
    kept,
)

from adserve.domain.events import EventKind, Outcome, Settled
from adserve.domain.traffic import Origin, Verdict
from adserve.limits.erased import from_nobody
from adserve.metering.errors import RecorderUnavailable, SpoolFull
from adserve.store.spool import BUSY_S, Spool, SpoolUnusable

KILLS = 2
KEPT_BEFORE_A_KILL = 60


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool" / "adserve.sqlite"


@pytest.fixture
async def spool(path: Path) -> AsyncIterator[Spool]:
    opened = Spool.open(path, SPOOL_BYTES)
    yield opened
    opened.close()


async def test_each_kind_of_a_ticket_is_kept_once_and_found_again(spool: Spool, path: Path) -> None:
    first, again, click = event(1), event(1, again=1), event(1, EventKind.CLICK)
    assert await spool.keep([first, again, click]) == [
        Settled(first.event, Outcome.ACCEPTED, None, waits=True),
        Settled(first.event, Outcome.DUPLICATE, None, waits=True),
        Settled(click.event, Outcome.ACCEPTED, None, waits=True),
    ]
    other = Spool.open(path, SPOOL_BYTES)
    rows = await other.oldest(10)
    assert [row.event for row in rows] == [first, click]
    assert [one.kind for one in await other.of_ticket(first.ticket)] == ["impression", "click"]
    assert (await other.waiting()).oldest_at_ms == NOW_MS + 1
    assert other.id == spool.id
    await other.remove([row.number for row in rows])
    assert (await spool.waiting()).events == 0
    other.close()


async def test_no_number_is_given_twice(spool: Spool) -> None:
    """Else who removes what another process has removed would remove what came after it."""
    await spool.keep([event(1)])
    (row,) = await spool.oldest(10)
    await spool.remove([row.number])
    await spool.keep([event(2)])
    await spool.remove([row.number])
    assert (await spool.waiting()).events == 1


async def test_counters_hear_of_what_was_judged_and_of_hides(spool: Spool) -> None:
    await spool.keep(
        [
            event(1),
            event(2, outcome=Outcome.OVER_CAP),
            event(3, outcome=Outcome.ACCEPTED),
            event(4, EventKind.CLICK, Outcome.UNBILLED_KIND),
            event(5, EventKind.HIDE, Outcome.UNBILLED_KIND),
            event(6, EventKind.REPORT, Outcome.UNBILLED_KIND),
        ]
    )
    counted = [(one.kind, one.outcome) async for one in spool.counted()]
    assert counted == [
        ("impression", "recorded"),
        ("impression", "over_cap"),
        ("hide", "unbilled_kind"),
        ("report", "unbilled_kind"),
    ]
    assert await spool.hides(NOW_MS + 7) == []
    assert await spool.hides(NOW_MS + 5) == [(b"c" * 16, 1, NOW_MS + at) for at in (5, 6)]


async def fill(spool: Spool) -> int:
    """How many events it took."""
    taken = 0
    while True:
        try:
            await spool.keep([event(taken), event(taken + 1)])
        except SpoolFull:
            return taken
        taken += 2


async def test_a_full_spool_says_so_and_keeps_what_it_has(path: Path) -> None:
    spool = Spool.open(path, 100_000)
    taken = await fill(spool)
    assert spool.trouble == "full"
    rows = await spool.oldest(1_000)
    assert len(rows) == taken > 50
    assert (await spool.waiting()).bytes <= 100_000
    await spool.remove([row.number for row in rows[:20]])
    await spool.keep([event(5_000)])
    assert spool.trouble is None
    spool.close()


async def test_a_write_that_another_process_holds_up_is_given_up(spool: Spool, path: Path) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(RecorderUnavailable, match="locked"):
        await spool.keep([event(1)])
    other.execute("ROLLBACK")
    await spool.keep([event(1)])
    other.close()


async def test_nothing_is_left_of_an_erased_viewer_in_the_file(spool: Spool, path: Path) -> None:
    origin = Origin(("Crawler/1.0",), "192.0.2.0/24", b"a" * 16, b"d" * 16)
    whole = structs.replace(event(1), verdict=Verdict(None, 1, origin))
    keys = (TICKET.viewer_cap, TICKET.viewer_log, *(b"a" * 16, b"d" * 16, b"192.0.2.0"))

    def found() -> set[bytes]:
        files = b"".join(file.read_bytes() for file in path.parent.iterdir())
        return {key for key in keys if key in files}

    await spool.keep([whole])
    assert found() == set(keys)
    await spool.erase(TICKET.viewer_cap)
    assert found() == set()
    assert [row.event for row in await spool.oldest(10)] == [from_nobody(whole)]


async def test_what_cannot_be_read_is_given_as_it_is(spool: Spool, path: Path) -> None:
    await spool.keep([event(1), event(2)])
    other = sqlite3.connect(path)
    other.execute("UPDATE spooled SET event = x'02ff' WHERE number = 1")
    other.commit()
    other.close()
    rows = await spool.oldest(10)
    assert [(row.event, row.raw) for row in rows] == [(None, b"\x02\xff"), (event(2), rows[1].raw)]


def test_a_damaged_file_or_a_later_version_is_refused(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"no database" * 1_000)
    with pytest.raises(SpoolUnusable, match="move it away"):
        Spool.open(path, SPOOL_BYTES)
    path.unlink()
    later = sqlite3.connect(path)
    later.execute("PRAGMA user_version = 2")
    later.close()
    with pytest.raises(SpoolUnusable, match="version 2"):
        Spool.open(path, SPOOL_BYTES)


async def test_one_process_at_a_time_has_its_turn(spool: Spool, path: Path) -> None:
    other = Spool.open(path, SPOOL_BYTES)
    with spool.turn() as first, other.turn() as second:
        assert (first, second) == (True, False)
    with other.turn() as third:
        assert third
    other.close()


async def opened_at_once(folder: Path) -> int:
    """How many of those that make the same file at the same moment have it."""

    async def opened(path: Path) -> int:
        tries = [asyncio.to_thread(Spool.open, path, SPOOL_BYTES) for _ in range(6)]
        spools = [
            one for one in await asyncio.gather(*tries, return_exceptions=True) if isinstance(one, Spool)
        ]
        for spool in spools:
            spool.close()
        return len(spools)

    return sum([await opened(folder / str(nth) / "spool.sqlite") for nth in range(10)])


async def test_all_who_make_the_file_at_once_have_it(tmp_path: Path) -> None:
    assert await opened_at_once(tmp_path) == 60


async def opened_while_another_is_at_it(path: Path) -> object:
    """What comes of a second opening while the first has the file locked for as long as the second lets it."""
    begun, go_on = Event(), Event()

    class Slow(Spool):
        @staticmethod
        def prepare(connection: sqlite3.Connection, max_bytes: int) -> None:
            connection.execute("BEGIN IMMEDIATE")
            begun.set()
            go_on.wait()
            connection.execute("ROLLBACK")
            Spool.prepare(connection, max_bytes)

    first = asyncio.create_task(asyncio.to_thread(Slow.open, path, SPOOL_BYTES))
    await asyncio.to_thread(begun.wait)
    second = asyncio.create_task(asyncio.to_thread(Spool.open, path, SPOOL_BYTES))
    await asyncio.wait([second], timeout=BUSY_S + 1)
    go_on.set()
    (await first).close()
    (found,) = await asyncio.gather(second, return_exceptions=True)
    if isinstance(found, Spool):
        found.close()
    return found


async def test_who_comes_second_waits_for_its_turn(path: Path) -> None:
    assert isinstance(await opened_while_another_is_at_it(path), Spool)


async def test_control_without_a_lock_who_comes_second_does_not_have_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adserve.store.spool.alone", nullcontext)
    assert isinstance(await opened_while_another_is_at_it(path), SpoolUnusable)


async def lost_by_kills(path: Path, twin: type[Spool]) -> set[int]:
    """Of what processes acknowledged that were killed, two at a time on one file."""
    said: set[int] = set()
    for kill in range(1, KILLS + 1):
        with keeping(path, twin, kill * 100_000) as one, keeping(path, twin, kill * 100_000 + 50_000) as two:
            said |= await asyncio.to_thread(acknowledged, one, KEPT_BEFORE_A_KILL)
            said |= await asyncio.to_thread(acknowledged, two, KEPT_BEFORE_A_KILL)
    assert len(said) >= KILLS * 2 * KEPT_BEFORE_A_KILL
    return said - await kept(path)


async def test_what_killed_processes_acknowledged_is_there(path: Path) -> None:
    assert await lost_by_kills(path, Spool) == set()


async def test_control_a_twin_that_answers_before_its_commit_loses_events(path: Path) -> None:
    assert await lost_by_kills(path, Early) != set()


async def test_a_full_disk_is_never_a_success_and_it_resumes(tmp_path: Path) -> None:
    with disk(tmp_path) as (mounted, _):
        path, filler = mounted / "spool" / "full.sqlite", mounted / "filler"
        spool = Spool.open(path, SPOOL_BYTES)
        taken, refused = [], 0
        await asyncio.to_thread(fill_disk, filler)
        for nth in range(3_000):
            try:
                await spool.keep([event(nth)])
                taken.append(nth)
            except RecorderUnavailable:
                refused += 1
        await asyncio.to_thread(filler.unlink)
        await spool.keep([event(5_000)])
        spool.close()
        assert refused > 100
        assert await kept(path) == {*taken, 5_000}


def fill_disk(filler: Path) -> None:
    with filler.open("wb", buffering=0) as file:
        for piece in (b"\0" * 1_000_000, b"\0" * 4_096):
            with suppress(OSError):
                while True:
                    file.write(piece)


async def lost_by_a_power_cut(mounted: Path, cut: Cut, twin: type[Spool]) -> set[int]:
    path = mounted / "spool" / f"{twin.__name__}.sqlite"
    with keeping(path, twin) as process:
        assert process.stdout is not None
        said = {int(await asyncio.to_thread(process.stdout.readline)) for _ in range(KEPT_BEFORE_A_KILL)}
        cut.power()
        await asyncio.to_thread(process.wait)
    cut.unmount()
    cut.mount()
    return said - (await kept(path) if path.exists() else set())


async def test_what_was_acknowledged_outlives_a_power_cut(tmp_path: Path) -> None:
    with disk(tmp_path) as (mounted, cut):
        assert await lost_by_a_power_cut(mounted, cut, Spool) == set()


async def test_control_commits_that_are_not_synced_are_lost_in_a_power_cut(tmp_path: Path) -> None:
    with disk(tmp_path) as (mounted, cut):
        assert await lost_by_a_power_cut(mounted, cut, Unsynced) != set()
