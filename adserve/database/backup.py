"""Copies of a data home: taken while it is served, proven by being started, put back into an empty place.

A backup is laid out like a data home. Its manifest is written last and names every file with its SHA-256, and every table
with the count and hash of its rows as they were in the copy; without one the backup was not finished. Taken in this
order, nothing acknowledged falls between two parts: what leaves the spool is in the database by then, and media are
there before a row names them.
"""

import asyncio
import hashlib
import os
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import asyncpg
import msgspec
from msgspec import Struct

from adserve.database import embedded, installation, statements
from adserve.database.installation import SUPERUSER, Installation
from adserve.database.refusal import DatabaseRefused

SQL = statements.load(Path(__file__).parent / "sql" / "backup.sql")

FORMAT = 1
MANIFEST = "manifest.json"
PARTIAL = "restore.partial"
POSTGRES = "postgres"
CHECKED = f"{POSTGRES}/checked.json"
"""The manifest, in what is put in place last: all is there and was checked, and nothing is to be copied again."""
MEDIA = "media"
SPOOL = "spool"
BLOCK_BYTES = 2**20
HASH_TIMEOUT_S = 3_600.0
HASH_SETTINGS = {"timezone": "UTC", "datestyle": "ISO", "bytea_output": "hex", "extra_float_digits": "1"}

_COPIED = re.compile(r"(\d+)/(\d+) kB")

Progress = Callable[[str], None]
Meter = Callable[[str, int, int], None]
"""Hears what is being done, how many bytes of it are, and how many there are in all."""


class Table(Struct, frozen=True):
    """`hash` is the same for the same rows in any order."""

    rows: int
    hash: str


class File(Struct, frozen=True):
    path: str
    size: int
    sha256: str


class Manifest(Struct, frozen=True):
    """Paths are relative to the backup's folder. Folders are named as well: PostgreSQL needs the empty ones."""

    format: int
    taken_at: datetime
    adserve: str
    tables: dict[str, Table]
    folders: tuple[str, ...]
    files: tuple[File, ...]


async def take(
    data_home: Path, url: str, target: Path, now: datetime, progress: Progress, meter: Meter
) -> Manifest:
    """Copies the data home, whose running server has that URL, into `target`, which is new or empty.

    Raises DatabaseRefused, and then leaves nothing behind.
    """
    try:
        if _holds_something(target):
            raise DatabaseRefused(f"{target} is not empty: name a folder that is new")
        source, copy = installation.locate(data_home), installation.locate(target)
    except OSError as error:
        raise DatabaseRefused(f"the backup cannot be written there: {error}") from error
    try:
        _copy_spools(data_home / SPOOL, target / SPOOL)
        await _copy_cluster(source, url, copy, meter)
        _copy_media(data_home / MEDIA, target / MEDIA, meter)
        progress("starting the copy, to count and hash what is in it")
        tables = await _ledger_of(target, progress)
        _leave_out_programs(copy)
        folders, files = _listed(target, meter)
        manifest = Manifest(FORMAT, now, version("adserve"), tables, folders, files)
        _write_durably(target / MANIFEST, msgspec.json.format(msgspec.json.encode(manifest)))
    except BaseException as error:
        for name in (POSTGRES, SPOOL, MEDIA, MANIFEST):
            _remove(target / name)
        if isinstance(error, OSError | sqlite3.Error):
            raise DatabaseRefused(f"the backup could not be written: {error}") from error
        raise
    return manifest


async def restore(source: Path, data_home: Path, progress: Progress, meter: Meter) -> Manifest:
    """Puts a backup into `data_home`, which is new or empty, and answers what is there now.

    Raises DatabaseRefused for a backup that is unfinished or damaged, and then leaves nothing behind. One that was cut short goes on.
    """
    manifest = _read_manifest(source)
    partial = data_home / PARTIAL
    if (partial / CHECKED).exists():
        if (partial / CHECKED).read_bytes() != msgspec.json.encode(manifest):
            raise DatabaseRefused(
                f"{partial} is what is left of restoring another backup: restore that one again, or name another ADSERVE_DATA_HOME"
            )
        progress("restoring this backup was cut short when all was checked: putting the rest in place")
        return _put_in_place(partial, data_home, manifest)
    _remove(partial)
    if _holds_something(data_home):
        raise DatabaseRefused(
            f"{data_home} is not empty, and nothing is overwritten: name another ADSERVE_DATA_HOME"
        )
    place = installation.locate(partial)
    try:
        _copy_checked(source, manifest, place, meter)
        progress("starting the restored database, to count and hash what is in it")
        tables = await _ledger_of(partial, progress)
        differing = sorted(
            name
            for name in tables.keys() | manifest.tables.keys()
            if tables.get(name) != manifest.tables.get(name)
        )
        if differing:
            raise DatabaseRefused(f"restored, these tables are not what they were: {', '.join(differing)}")
        _write_durably(partial / CHECKED, msgspec.json.encode(manifest))
    except BaseException as error:
        _remove(partial)
        if isinstance(error, OSError):
            raise DatabaseRefused(f"the backup could not be restored: {error}") from error
        raise
    return _put_in_place(partial, data_home, manifest)


def check_whole(data_home: Path) -> None:
    """Raises DatabaseRefused where a restore was cut short: beside its spool a new, empty ledger would be begun."""
    if (data_home / PARTIAL).exists() and not (data_home / POSTGRES).exists():
        raise DatabaseRefused(
            f"restoring a backup into {data_home} was cut short: call `adserve restore` again"
        )


def _copy_spools(source: Path, target: Path) -> None:
    """Each as it stands at one moment, whoever writes to it."""
    for path in sorted(source.glob("*.sqlite")):
        target.mkdir(mode=0o700, exist_ok=True)
        with closing(sqlite3.connect(path)) as spool, closing(sqlite3.connect(target / path.name)) as copy:
            spool.backup(copy)


async def _copy_cluster(source: Installation, url: str, copy: Installation, meter: Meter) -> None:
    """A base backup with the WAL that was written meanwhile, synced to disk."""
    shutil.copyfile(source.password, copy.password)
    copy.password.chmod(0o600)
    copy.cluster.mkdir(mode=0o700)
    for path in (copy.password, copy.cluster):
        os.chown(path, copy.user.pw_uid, copy.user.pw_gid)
    process = await asyncio.create_subprocess_exec(
        *source.command(
            "pg_basebackup",
            f"--pgdata={copy.cluster}",
            "--host=127.0.0.1",
            f"--port={urlsplit(url).port}",
            f"--username={SUPERUSER}",
            "--no-password",
            "--wal-method=stream",
            "--checkpoint=fast",
            "--no-manifest",
            "--sync-method=syncfs",
            "--progress",
        ),
        cwd=copy.root,
        env=source.environment
        | {"PGPASSWORD": source.password.read_text(encoding="ascii"), "PGSSLMODE": "disable"},
        stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None  # noqa: S101 - for the type checker
    said = ""
    async for line in process.stderr:
        copied = _COPIED.search(line.decode(errors="replace"))
        if copied is None:
            said += line.decode(errors="replace")
        else:
            meter("copying the database", int(copied[1]) * 1_024, int(copied[2]) * 1_024)
    if await process.wait() != 0:
        raise DatabaseRefused(f"PostgreSQL could not be copied: {said.strip()}")


def _copy_media(source: Path, target: Path, meter: Meter) -> None:
    """Nothing is ever changed or removed there, and what has no name of its own yet is not named by a row either."""
    media = [path for path in sorted(source.glob("*/*")) if path.suffix]
    total, done = sum(path.stat().st_size for path in media), 0
    for path in media:
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        _copy_hashed(path, copy)
        done += path.stat().st_size
        meter("copying media", done, total)
    os.sync()


async def _ledger_of(data_home: Path, progress: Progress) -> dict[str, Table]:
    """Starts the server there, which recovers first, and stops it again, which writes everything out."""
    server = await embedded.start(data_home, lambda _: None)
    try:
        connection = await asyncpg.connect(server.url, server_settings=HASH_SETTINGS)
        try:
            tables = {}
            for name, statement in await connection.fetch(SQL.ledger):
                rows, digest = await connection.fetchrow(statement, timeout=HASH_TIMEOUT_S)
                tables[name] = Table(rows, digest)
                if name in ("events", "postings", "accounts"):
                    progress(f"{name}: {rows:,} rows")
            return tables
        finally:
            await connection.close()
    finally:
        await server.stop()


def _leave_out_programs(copy: Installation) -> None:
    """They come with adserve; the rest says where a server runs."""
    for path in copy.root.iterdir():
        if path not in (copy.cluster, copy.password):
            _remove(path)


def _listed(target: Path, meter: Meter) -> tuple[tuple[str, ...], tuple[File, ...]]:
    paths = sorted(target.rglob("*"))
    sizes = {path: path.stat().st_size for path in paths if path.is_file()}
    folders = tuple(str(path.relative_to(target)) for path in paths if path.is_dir())
    total, done, files = sum(sizes.values()), 0, []
    for path, size in sizes.items():
        with path.open("rb") as file:
            files.append(
                File(str(path.relative_to(target)), size, hashlib.file_digest(file, "sha256").hexdigest())
            )
        done += size
        meter("hashing the backup", done, total)
    return folders, tuple(files)


def _read_manifest(source: Path) -> Manifest:
    path = source / MANIFEST
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
    except FileNotFoundError:
        raise DatabaseRefused(
            f"{source} is no backup, or one that was not finished: it has no {MANIFEST}"
        ) from None
    except (OSError, ValueError) as error:
        raise DatabaseRefused(f"{path} cannot be read: {error}") from error
    if manifest.format != FORMAT:
        raise DatabaseRefused(f"{path} has format {manifest.format}, and only {FORMAT} is known here")
    for name in (*manifest.folders, *(file.path for file in manifest.files)):
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise DatabaseRefused(f"{path} names a file that is not in the backup: {name}")
    return manifest


def _copy_checked(source: Path, manifest: Manifest, place: Installation, meter: Meter) -> None:
    target = place.root.parent
    total, done = sum(file.size for file in manifest.files), 0
    for name in manifest.folders:
        (target / name).mkdir(mode=0o700 if name == SPOOL else 0o755, parents=True, exist_ok=True)
    for file in manifest.files:
        path = source / file.path
        try:
            digest = _copy_hashed(path, target / file.path)
        except FileNotFoundError:
            raise DatabaseRefused(f"the backup is incomplete: {path} is missing") from None
        if digest != file.sha256:
            raise DatabaseRefused(f"the backup is damaged: {path} is not what it was when it was taken")
        done += file.size
        meter("copying and checking", done, total)
    os.sync()  # once for all: a file at a time takes many times as long
    for path in (place.password, place.cluster, *place.cluster.rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)
        os.chown(path, place.user.pw_uid, place.user.pw_gid)


def _copy_hashed(source: Path, target: Path) -> str:
    """Answers the SHA-256 of what was copied."""
    digest = hashlib.sha256()
    with source.open("rb") as reader, target.open("wb") as writer:
        for block in _blocks(reader.read):
            digest.update(block)
            writer.write(block)
    return digest.hexdigest()


def _blocks(read: Callable[[int], bytes]) -> Iterator[bytes]:
    while block := read(BLOCK_BYTES):
        yield block


def _write_durably(path: Path, data: bytes) -> None:
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)


def _put_in_place(partial: Path, data_home: Path, manifest: Manifest) -> Manifest:
    """The ledger last: cut short before, none is there that could be served without its spool."""
    try:
        for part in sorted(partial.iterdir(), key=lambda part: part.name == POSTGRES):
            part.rename(data_home / part.name)
    except OSError as error:
        raise DatabaseRefused(f"the backup is not all in place: {error}. Then restore it again") from error
    _remove(data_home / CHECKED)
    partial.rmdir()
    return manifest


def _holds_something(folder: Path) -> bool:
    return folder.exists() and any(folder.iterdir())


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
