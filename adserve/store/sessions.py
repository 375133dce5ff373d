"""Sessions of the console, by the hash of their cookie."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from adserve.access.keys import Key
from adserve.access.sessions import SESSIONS_PER_KEY_MAX, NewSession
from adserve.domain.ids import KeyId
from adserve.domain.time import from_ms
from adserve.store.desk import ACQUIRE_TIMEOUT_S, Desk
from adserve.store.errors import Away
from adserve.store.keys import key_from_row
from adserve.store.statements import load

SQL = load("sessions")

LOOKED_UP_AT_ONCE_MAX = 2
"""Anybody may send a cookie: the operator's other connections are left to who acts, and may have to pause all ads."""
KNOWN_MAX = 1_000
"""Sessions that were found before wait for no stranger's cookie."""


class Sessions:
    """Every replica asks the table at each call, so that a key that is revoked opens nothing from then on."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._turns = asyncio.Semaphore(LOOKED_UP_AT_ONCE_MAX)
        self._known: set[bytes] = set()

    async def open(self, new: NewSession, key: KeyId, now_ms: int) -> None:
        """Sweeps up what has ended as well."""
        now = from_ms(now_ms)
        async with self._desk.transaction(None) as connection:
            await connection.execute(SQL.open, new.hash, key, now, from_ms(new.expires_at_ms))
            await connection.execute(SQL.close_expired, now)
            await connection.execute(SQL.close_oldest, key, SESSIONS_PER_KEY_MAX)

    async def caller(self, session_hash: bytes, now_ms: int) -> Key | None:
        """The key that the session was opened with, while both last."""
        async with self._turn(session_hash), self._desk.transaction(None) as connection:
            row = await connection.fetchrow(SQL.caller, session_hash, from_ms(now_ms))
        if row is None:
            self._known.discard(session_hash)
            return None
        if len(self._known) >= KNOWN_MAX:
            self._known.clear()
        self._known.add(session_hash)
        return key_from_row(row)

    async def close(self, session_hash: bytes) -> None:
        async with self._turn(session_hash), self._desk.transaction(None) as connection:
            await connection.execute(SQL.close, session_hash)

    @asynccontextmanager
    async def _turn(self, session_hash: bytes) -> AsyncIterator[None]:
        if session_hash in self._known:
            yield
            return
        try:
            async with asyncio.timeout(ACQUIRE_TIMEOUT_S):
                await self._turns.acquire()
        except TimeoutError as error:
            raise Away from error
        try:
            yield
        finally:
            self._turns.release()
