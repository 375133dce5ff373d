"""Media lie under the SHA-256 of their bytes in the data home: a name never comes to mean other bytes."""

import asyncio
import hashlib
import os
import tempfile
from pathlib import Path
from typing import NamedTuple

import asyncpg

from adserve.database.synced import sync_folder
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


class Medium(NamedTuple):
    path: Path
    content_type: str


class Media:
    """Storing needs the operator's pool; finding needs none."""

    def __init__(self, home: Path, pool: asyncpg.Pool) -> None:
        self._home = home
        self._pool = pool

    async def put(self, data: bytes, content_type: str, width: int, height: int) -> str:
        """Stores the bytes and makes them known; answers their SHA-256. Storing again changes nothing."""
        sha256 = hashlib.sha256(data).hexdigest()
        path = self._folder(sha256) / f"{sha256}{SUFFIXES[content_type]}"
        await asyncio.to_thread(_write_durably, path, data)
        await self._pool.execute(SQL.put, sha256, content_type, len(data), width, height)
        return sha256

    def find(self, sha256: str) -> Medium | None:
        for content_type, suffix in SUFFIXES.items():
            path = self._folder(sha256) / f"{sha256}{suffix}"
            if path.is_file():
                return Medium(path, content_type)
        return None

    def _folder(self, sha256: str) -> Path:
        return self._home / sha256[:2]


def _write_durably(path: Path, data: bytes) -> None:
    """The name appears with all of its bytes on disk, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    for folder in (path.parent, path.parent.parent):
        sync_folder(folder)
