"""Media lie under the SHA-256 of their bytes in the data home: a name never comes to mean other bytes."""

import asyncio
import hashlib
import io
import logging
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

import asyncpg

from adserve.database.synced import sync_folder
from adserve.domain.time import SECOND_MS
from adserve.store.desk import Connection
from adserve.store.errors import AWAY, Away, UnknownReference
from adserve.store.statements import load

SQL = load("media")

SUFFIXES = {
    "image/gif": ".gif",
    "image/jpeg": ".jpg",
    "image/png": ".png",
    "image/webp": ".webp",
    "video/mp4": ".mp4",
}
"""The suffix keeps the content type, so that a medium is served without the database."""


PARTIAL = "partial-"
"""What begins so was to become a medium. Younger than this it may become one still."""
PARTIAL_FOR_S = 3_600
READ_AT_ONCE_BYTES = 1 << 20

log = logging.getLogger(__name__)


class Medium(NamedTuple):
    path: Path
    content_type: str


class Media:
    """Storing needs the operator's pool; finding needs none."""

    def __init__(self, home: Path, pool: asyncpg.Pool) -> None:
        self._home = home
        self._pool = pool

    async def put(self, data: bytes, content_type: str, width: int, height: int) -> str:
        return await self.keep(io.BytesIO(data), content_type, width, height)

    async def keep(self, file: BinaryIO, content_type: str, width: int, height: int) -> str:
        """Stores what the file holds and makes it known; answers its SHA-256. Storing again changes nothing. Raises Away."""
        try:
            sha256, size = await asyncio.to_thread(self._store, file, content_type)
            await self._pool.execute(SQL.put, sha256, content_type, size, width, height)
        except AWAY as error:
            log.warning("a medium was not stored", extra={"reason": repr(error)})
            raise Away from error
        return sha256

    def scratch(self) -> BinaryIO:
        """A file without a name: it is gone once it is closed, or this process is. Nor has it a buffer, which a full disk would
        keep from being closed. Raises Away."""
        try:
            self._home.mkdir(parents=True, exist_ok=True)
            return tempfile.TemporaryFile(dir=self._home, prefix=PARTIAL, buffering=0)
        except OSError as error:
            log.warning("no file for an upload", extra={"reason": repr(error)})
            raise Away from error

    async def sweep(self, now_ms: int) -> None:
        """Removes what processes that were killed while they stored it have left."""
        await asyncio.to_thread(_sweep, self._home, now_ms // SECOND_MS - PARTIAL_FOR_S)

    def find(self, sha256: str) -> Medium | None:
        for content_type, suffix in SUFFIXES.items():
            path = self._folder(sha256) / f"{sha256}{suffix}"
            if path.is_file():
                return Medium(path, content_type)
        return None

    def _store(self, file: BinaryIO, content_type: str) -> tuple[str, int]:
        digest = hashlib.sha256()
        file.seek(0)
        while data := file.read(READ_AT_ONCE_BYTES):
            digest.update(data)
        sha256, size = digest.hexdigest(), file.tell()
        file.seek(0)
        _write_durably(self._folder(sha256) / f"{sha256}{SUFFIXES[content_type]}", file)
        return sha256, size

    def _folder(self, sha256: str) -> Path:
        return self._home / sha256[:2]


async def content_type_of(connection: Connection, sha256: str) -> str:
    """Raises UnknownReference."""
    content_type: str | None = await connection.fetchval(SQL.content_type, sha256)
    if content_type is None:
        raise UnknownReference("media")
    return content_type


def _write_durably(path: Path, source: BinaryIO) -> None:
    """The name appears with all of its bytes on disk, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=PARTIAL)
    try:
        with os.fdopen(descriptor, "wb") as file:
            shutil.copyfileobj(source, file)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    for folder in (path.parent, path.parent.parent):
        sync_folder(folder)


def _sweep(home: Path, before_s: int) -> None:
    for path in home.glob(f"**/{PARTIAL}*"):
        with suppress(FileNotFoundError):  # a sibling sweeps, too
            if path.stat().st_mtime < before_s:
                path.unlink()
