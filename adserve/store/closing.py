"""Closes the books of old days, and takes their events out of the log: an entry stands for them before they go."""

import asyncio
import gzip
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import date, datetime
from pathlib import Path
from typing import Any

from adserve.database.synced import sync_folder
from adserve.store.errors import StoreError
from adserve.store.statements import load

SQL = load("closing")

DAYS_AT_ONCE = 10
TIMEOUT_S = 3_600.0


class NotExported(StoreError):
    """A day's file has not all of its events."""


class Closing:
    """Needs a connection as adserve_owner, outside of a transaction. Every step is safe to repeat."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def take_turn(self) -> bool:
        """Whether nobody else is at it. The turn ends when the connection is given back."""
        taken: bool = await self._connection.fetchval(SQL.take_turn)
        return taken

    async def close_before(self, first_kept: date, at: datetime) -> str | None:
        """Closes the oldest open days, some at a time and in order. Answers what the first that stays open waits for."""
        for (day,) in await self._connection.fetch(SQL.open_before, first_kept, DAYS_AT_ONCE):
            async with self._patiently():
                waits_for = await self._connection.fetchval(SQL.close, day, at, timeout=TIMEOUT_S)
            if waits_for is not None:
                return f"{day}: {waits_for}"
        return None

    async def detach(self, closed_until: datetime) -> None:
        """Makes the partitions of days that were closed by then tables of their own. Whoever reads or writes events goes on
        meanwhile."""
        await self._connection.execute(SQL.wait_briefly)
        for (statement,) in await self._connection.fetch(SQL.to_detach, closed_until):
            await self._connection.execute(statement)  # outside of a transaction, as it takes two

    async def drop_detached(self) -> None:
        for day, _, _ in await self._connection.fetch(SQL.detached):
            await self._drop(day)

    async def export_detached(self, folder: Path) -> None:
        """Writes each detached day into a file, and drops it when that is on disk."""
        for day, name, events in await self._connection.fetch(SQL.detached):
            await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
            await self._export(name, events, folder / f"{name}.csv.gz")
            await self._drop(day)

    async def _drop(self, day: date) -> None:
        async with self._patiently():
            await self._connection.execute(SQL.drop, day, timeout=TIMEOUT_S)

    async def _export(self, name: str, events: int, path: Path) -> None:
        part = path.with_suffix(".part")
        with gzip.open(part, "wb") as file:
            async with self._patiently():
                status = await self._connection.copy_from_table(
                    name,
                    schema_name="adserve",
                    output=_in_a_thread(file.write),
                    format="csv",
                    header=True,
                    timeout=TIMEOUT_S,
                )
        if status != f"COPY {events}":
            raise NotExported(f"{name} has {events} events, and its file another number: {status}")
        await asyncio.to_thread(_put_in_place, part, path)

    @asynccontextmanager
    async def _patiently(self) -> AsyncIterator[None]:
        async with self._connection.transaction():
            await self._connection.execute(SQL.be_patient)
            yield


def _in_a_thread(write: Callable[[bytes], object]) -> Callable[[bytes], object]:
    async def compress(chunk: bytes) -> None:
        await asyncio.to_thread(write, chunk)

    return compress


def _put_in_place(part: Path, path: Path) -> None:
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(path)
    sync_folder(path.parent)
