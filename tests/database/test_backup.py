"""A backup is taken while events settle, and put back elsewhere it is what was backed up, to the row."""

import asyncio
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest
from folders import new_home
from world import World, make_world

from adserve.__main__ import main
from adserve.bootstrap.server import database_server
from adserve.database import backup, embedded
from adserve.database.embedded import Embedded
from adserve.database.migrate import migrate
from adserve.database.pools import open_pool, open_pools
from adserve.database.refusal import DatabaseRefused
from adserve.settings import Settings
from adserve.store.books import reconciled
from adserve.store.media import Media

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PICTURE = b"not looked into"


def silent(*_: object) -> None: ...


class Traffic:
    """Settles batch after batch; `acknowledged` are the tickets whose batch has committed."""

    def __init__(self, world: World, lease: int) -> None:
        self._world = world
        self._lease = lease
        self.acknowledged: list[UUID] = []

    async def run(self) -> None:
        while True:
            events = [self._world.event(self._world.ticket(self._lease)) for _ in range(20)]
            await self._world.journal.settle(events)
            self.acknowledged += [event.ticket.ticket for event in events]


@asynccontextmanager
async def traffic(url: str) -> AsyncIterator[Traffic]:
    pools = await open_pools(url)
    try:
        world = await make_world(pools)
        running = Traffic(world, await world.lease(500_000_000))
        task = asyncio.create_task(running.run())
        while len(running.acknowledged) < 200:  # noqa: ASYNC110 - until it is under way
            await asyncio.sleep(0.01)
        yield running
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    finally:
        await pools.close()


@pytest.fixture
def folder(empty_home: Path) -> Path:
    return empty_home / "backup"


@pytest.fixture(scope="module")
def taken(prepared_home: Path) -> Iterator[Path]:
    """A backup of a database that was never migrated. A worker that is given tests of another's may take it twice."""
    with new_home() as folder:
        asyncio.run(_take(prepared_home, folder / "backup"))
        yield folder / "backup"


async def _take(home: Path, target: Path) -> None:
    server = await embedded.start(home, silent)
    await backup.take(home, server.url, target, NOW, silent, silent)
    await server.stop()
    (home / "postgres" / "address").unlink()


@pytest.fixture
def copied(taken: Path, folder: Path) -> Path:
    """One that a test may harm."""
    return Path(shutil.copytree(taken, folder))


async def test_what_was_acknowledged_before_a_backup_under_traffic_is_in_it_and_comes_back(
    own_server: Embedded, data_home: Path, folder: Path, empty_home: Path
) -> None:
    migrate(own_server.url, silent)
    async with traffic(own_server.url) as running:
        pool = await open_pool(own_server.url, "adserve_operator", size=1)
        async with pool:
            picture = await Media(data_home / "media", pool).put(PICTURE, "image/png", 1, 1)
        spool = spooling(data_home)
        before = set(running.acknowledged)
        meters: set[str] = set()
        manifest = await backup.take(
            data_home, own_server.url, folder, NOW, silent, lambda what, *_: meters.add(what)
        )
        spool.close()
        during = len(running.acknowledged) - len(before)
    assert during > 0
    assert meters == {"copying the database", "copying media", "hashing the backup"}
    assert manifest.tables["events"].rows >= len(before)

    elsewhere = empty_home / "elsewhere"
    assert await backup.restore(folder, elsewhere, silent, silent) == manifest
    async with restored(elsewhere) as url:
        connection = await asyncpg.connect(url, server_settings={"search_path": "adserve"})
        tickets = {ticket for (ticket,) in await connection.fetch("SELECT ticket_id FROM events")}
        await connection.close()
        assert before <= tickets <= set(running.acknowledged)
        analyst = await open_pool(url, "adserve_analyst", size=1)
        async with analyst:
            books = await reconciled(analyst)
            medium = Media(elsewhere / "media", analyst).find(picture)
    with closing(sqlite3.connect(elsewhere / "spool" / "adserve.sqlite")) as copy:
        assert copy.execute("SELECT event FROM spooled").fetchall() == [(b"committed",)]
    assert (elsewhere / "spool").stat().st_mode & 0o777 == 0o700
    assert books.exact
    assert books.events == manifest.tables["events"].rows
    assert medium is not None
    assert medium.path.read_bytes() == PICTURE


def spooling(home: Path) -> sqlite3.Connection:
    """A spool that somebody is writing to: one event has committed, and is in no main file yet, the other has not."""
    (home / "spool").mkdir()
    spool = sqlite3.connect(home / "spool" / "adserve.sqlite", isolation_level=None)
    spool.execute("PRAGMA journal_mode = WAL")
    spool.execute("CREATE TABLE spooled (event BLOB)")
    spool.execute("INSERT INTO spooled VALUES (?)", (b"committed",))
    spool.execute("BEGIN")
    spool.execute("INSERT INTO spooled VALUES (?)", (b"not yet",))
    return spool


@asynccontextmanager
async def restored(home: Path) -> AsyncIterator[str]:
    server = await embedded.start(home, silent)
    try:
        yield server.url
    finally:
        await server.stop()


def falsify_a_file(folder: Path) -> str:
    path = max((folder / "postgres" / "cluster" / "base").rglob("*"), key=lambda path: path.stat().st_size)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    return f"damaged: {path} is not what it was"


def cut_a_file(folder: Path) -> str:
    path = folder / "postgres" / "cluster" / "PG_VERSION"
    path.write_bytes(b"")
    return f"damaged: {path}"


def lose_a_file(folder: Path) -> str:
    path = folder / "postgres" / "password"
    path.unlink()
    return f"incomplete: {path} is missing"


def stop_half_way(folder: Path) -> str:
    (folder / "manifest.json").unlink()
    return "not finished"


def cut_the_manifest(folder: Path) -> str:
    path = folder / "manifest.json"
    path.write_bytes(path.read_bytes()[:-100])
    return "cannot be read"


def point_elsewhere(folder: Path) -> str:
    _rewrite(folder, lambda manifest: manifest["files"][0].update(path="../outside"))
    return "names a file that is not in the backup"


def count_differently(folder: Path) -> str:
    _rewrite(folder, lambda manifest: manifest["tables"].update(events={"rows": 1, "hash": "1/1"}))
    return "these tables are not what they were: events"


def come_from_the_future(folder: Path) -> str:
    _rewrite(folder, lambda manifest: manifest.update(format=2))
    return "has format 2"


def _rewrite(folder: Path, change: Callable[[dict], object]) -> None:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    "harm",
    [
        falsify_a_file,
        cut_a_file,
        lose_a_file,
        stop_half_way,
        cut_the_manifest,
        point_elsewhere,
        count_differently,
        come_from_the_future,
    ],
)
async def test_control_a_damaged_or_incomplete_backup_is_refused_and_leaves_nothing(
    copied: Path, empty_home: Path, harm: Callable[[Path], str]
) -> None:
    reason = harm(copied)
    elsewhere = empty_home / "elsewhere"
    with pytest.raises(DatabaseRefused, match=reason):
        await backup.restore(copied, elsewhere, silent, silent)
    assert not elsewhere.exists() or not any(elsewhere.iterdir())


def test_a_restore_that_is_cut_short_leaves_no_ledger_without_its_spool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = [tmp_path / backup.PARTIAL / name for name in ("postgres", "media", "spool")]
    for part in (*parts, tmp_path / "spool" / "in the way"):
        part.mkdir(parents=True)
    manifest = backup.Manifest(backup.FORMAT, NOW, "", {}, (), ())
    monkeypatch.setattr(Path, "iterdir", lambda _: iter(parts))  # which may list them in any order
    with pytest.raises(DatabaseRefused, match=r"spool.* restore it again"):
        backup._put_in_place(tmp_path / backup.PARTIAL, tmp_path, manifest)
    assert not (tmp_path / "postgres").exists()


@pytest.fixture(scope="module")
def taken_with_all(prepared_home: Path) -> Iterator[Path]:
    """A backup that has a spool and media, too."""
    with new_home() as folder:
        home = folder / "home"
        home.mkdir(mode=0o711)
        subprocess.run(["cp", "-a", f"{prepared_home}/postgres", home], check=True)
        spooling(home).close()
        (home / "media" / "ab").mkdir(parents=True)
        (home / "media" / "ab" / "picture.png").write_bytes(PICTURE)
        asyncio.run(_take(home, folder / "backup"))
        yield folder / "backup"


KILLED = """
import os, signal, sys
from pathlib import Path
from adserve.__main__ import main
from adserve.bootstrap.server import database_server
left, rename = int(sys.argv[1]), Path.rename
def rename_or_die(path, target):
    global left
    if path.parent.name == "restore.partial":
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
    return rename(path, target)
Path.rename = rename_or_die
main(["restore", sys.argv[2]])
"""


@pytest.mark.parametrize("moved", [0, 1, 2])
async def test_a_restore_that_was_killed_as_it_put_its_parts_in_place_goes_on(
    taken_with_all: Path, taken: Path, empty_home: Path, moved: int
) -> None:
    environment = os.environ | {"ADSERVE_DATA_HOME": str(empty_home)}
    killed = await asyncio.create_subprocess_exec(
        sys.executable, "-c", KILLED, str(moved), str(taken_with_all), env=environment
    )
    assert await killed.wait() == -signal.SIGKILL
    assert len(list(empty_home.iterdir())) == 1 + moved  # noqa: ASYNC240 - of a few entries
    with pytest.raises(DatabaseRefused, match="was cut short"):
        async with database_server(Settings(data_home=empty_home), silent):
            pass
    with pytest.raises(DatabaseRefused, match="another backup"):
        await backup.restore(taken, empty_home, silent, silent)
    manifest = await backup.restore(taken_with_all, empty_home, silent, silent)
    assert {path.name for path in empty_home.iterdir()} == {"media", "postgres", "spool"}  # noqa: ASYNC240 - as above
    assert not (empty_home / backup.CHECKED).exists()
    with closing(sqlite3.connect(empty_home / "spool" / "adserve.sqlite")) as spool:
        assert spool.execute("SELECT event FROM spooled").fetchall() == [(b"committed",)]
    async with database_server(Settings(data_home=empty_home), silent):
        pass
    assert manifest.format == backup.FORMAT
    with pytest.raises(DatabaseRefused, match="nothing is overwritten"):
        await backup.restore(taken_with_all, empty_home, silent, silent)


async def test_nothing_is_overwritten(taken: Path, data_home: Path) -> None:
    with pytest.raises(DatabaseRefused, match="is not empty"):
        await backup.take(data_home, "postgresql://127.0.0.1:1/x", taken, NOW, silent, silent)
    with pytest.raises(DatabaseRefused, match="nothing is overwritten"):
        await backup.restore(taken, data_home, silent, silent)
    assert (taken / "manifest.json").exists()


@pytest.mark.parametrize("below", ["", "sub"])
async def test_a_file_is_no_place_for_a_backup(data_home: Path, empty_home: Path, below: str) -> None:
    file = empty_home / "file"
    file.touch()
    with pytest.raises(DatabaseRefused, match="Not a directory"):
        await backup.take(data_home, "postgresql://127.0.0.1:1/x", file / below, NOW, silent, silent)


async def test_a_backup_that_cannot_be_finished_leaves_nothing(data_home: Path, folder: Path) -> None:
    with pytest.raises(DatabaseRefused, match="could not be copied"):
        await backup.take(data_home, "postgresql://127.0.0.1:1/x", folder, NOW, silent, silent)
    assert list(folder.iterdir()) == []  # noqa: ASYNC240 - of a few entries


async def test_the_commands_say_what_they_did(
    data_home: Path,
    folder: Path,
    empty_home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("ADSERVE_DATA_HOME", str(data_home))
    assert await asyncio.to_thread(main, ["backup", str(folder)]) == 0
    assert "0 events" in capsys.readouterr().out
    assert await asyncio.to_thread(main, ["restore", str(folder)]) == 1
    assert "nothing is overwritten" in capsys.readouterr().err
    monkeypatch.setenv("ADSERVE_DATA_HOME", str(empty_home / "elsewhere"))
    assert await asyncio.to_thread(main, ["restore", str(folder)]) == 0
    assert "all tables equal" in capsys.readouterr().out
    shutil.rmtree(folder)
    assert await asyncio.to_thread(main, ["restore", str(folder)]) == 1
    assert "not finished" in capsys.readouterr().err
    monkeypatch.setenv("ADSERVE_DATABASE_URL", "postgresql://127.0.0.1:1/x")
    for command in ("backup", "restore"):
        assert await asyncio.to_thread(main, [command, str(folder)]) == 1
        assert "a server of your own" in capsys.readouterr().err
