"""Erasures of viewers: asked for, carried out in PostgreSQL, and remembered by a tombstone."""

import base64
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import date
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from adserve.access.keys import Key
from adserve.domain.events import Event
from adserve.domain.time import from_ms, to_ms
from adserve.limits.erased import from_nobody, tombstone_of
from adserve.metering.erasing import Erasure
from adserve.store.errors import AWAY, Away
from adserve.store.statements import load

SQL = load("erasures")

AT_ONCE = 500

_decode_pending = msgspec.msgpack.Decoder(Event).decode
_decode_quarantined = msgspec.json.Decoder(Event).decode


class Erasures:
    """Needs a pool of adserve_recorder. Every method may be repeated."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def of(self, viewer: bytes) -> Erasure | None:
        row = await self._pool.fetchrow(SQL.of_tombstone, tombstone_of(viewer))
        return row and _from_row(row)

    async def ask(self, viewer: bytes, id_: UUID, key: Key, now_ms: int) -> Erasure:
        """The erasure that goes on, or one that begins now; and who asked for it is written down."""
        async with self._pool.acquire() as connection, connection.transaction():
            tombstone = tombstone_of(viewer)
            await connection.execute(SQL.ask, tombstone, id_, viewer, from_ms(now_ms))
            erasure = _from_row(await connection.fetchrow(SQL.of_tombstone, tombstone))
            await _note_call(connection, "erase", key, erasure.id, now_ms)
        return erasure

    async def note_call(self, call: str, key: Key, erasure: UUID | None, now_ms: int) -> None:
        """Who asked for what, without a word of whom it is about."""
        await _note_call(self._pool, call, key, erasure, now_ms)

    async def changed(self, since_ms: int) -> list[Erasure]:
        """Those that go on, and those that ended from a moment on."""
        try:
            return [_from_row(row) for row in await self._pool.fetch(SQL.changed, from_ms(since_ms))]
        except AWAY as error:
            raise Away(str(error)) from error

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[bool]:
        """Whether it is this process's turn to erase: one at a time does."""
        async with self._pool.acquire() as connection:
            yield await connection.fetchval(SQL.turn)  # what gives the connection back ends it

    async def days(self) -> list[date]:
        """Those of which something is kept that names a viewer."""
        return [row["day"] for row in await self._pool.fetch(SQL.days)]

    async def forget_maps(self, day: date, viewers: Sequence[bytes]) -> None:
        await self._pool.execute(SQL.forget_maps, day, viewers)

    async def forget_decisions(self, day: date, viewers: Sequence[bytes]) -> None:
        await self._pool.execute(SQL.forget_decisions, day, viewers)
        for viewer in viewers:
            await self._pool.execute(SQL.forget_old_decisions, day, viewer)

    async def strip_waiting(self, viewer: bytes) -> None:
        """What waits to be settled, or could not be, is kept without the viewer's keys."""
        while rows := await self._pool.fetch(SQL.pending, viewer, AT_ONCE):
            for *key, event in rows:
                stripped = msgspec.msgpack.encode(from_nobody(_decode_pending(event)))
                await self._pool.execute(SQL.strip_pending, *key, stripped)
        for written in (base64.b64encode(viewer), viewer):  # the latter in what came out of a spool unread
            await self._strip_quarantined(SQL.quarantined, written)

    async def strip_old(self, before_ms: int) -> None:
        """What could not be settled before that moment."""
        await self._strip_quarantined(SQL.quarantined_before, from_ms(before_ms))

    async def _strip_quarantined(self, statement: str, which: object) -> None:
        while rows := await self._pool.fetch(statement, which, AT_ONCE):
            for *key, event in rows:
                await self._pool.execute(SQL.strip_quarantined, *key, _stripped(event))

    async def finish(self, ids: Sequence[UUID], now_ms: int) -> None:
        await self._pool.execute(SQL.finish, ids, from_ms(now_ms))

    async def forget_tombstones(self) -> None:
        """Those of before the oldest key that still opens tickets."""
        await self._pool.execute(SQL.forget_tombstones)


async def _note_call(connection: Any, call: str, key: Key, erasure: UUID | None, now_ms: int) -> None:
    await connection.execute(SQL.note_call, call, erasure, key.id, key.name, from_ms(now_ms))


def _stripped(event: bytes) -> bytes:
    """Of what cannot be read nothing is left: it may name the viewer anywhere."""
    try:
        return msgspec.json.encode(from_nobody(_decode_quarantined(event)))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return b""


def _from_row(row: Any) -> Erasure:
    id_, tombstone, viewer, asked_at, cut_at = row
    return Erasure(id_, tombstone, viewer, to_ms(asked_at), None if cut_at is None else to_ms(cut_at))
