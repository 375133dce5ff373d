"""With counters in memory, one process serves at a time (I4).

Two locks say so. An advisory lock of PostgreSQL's keeps other machines out; it is lost with its connection, so a holder
may go on for `grace_s` without it, and whoever takes it meanwhile waits as long. A lock on a file in the data home
keeps other processes of this machine out; the kernel frees it when its holder dies, so whoever has it knows that
earlier holders of the same file are gone, and need not wait for them.
"""

import asyncio
import logging
import os
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg

from adserve.database import statements
from adserve.database.file_lock import try_lock
from adserve.database.pools import CONNECT_TIMEOUT_S
from adserve.database.refusal import DatabaseRefused
from adserve.domain.time import SECOND_MS

SQL = statements.load(Path(__file__).parent / "sql" / "serving.sql")
log = logging.getLogger(__name__)

GRACE_S = 300.0
BEAT_S = 2.0
"""How often `keep` is to be called."""
PATIENCE_S = 3.0
"""How long the connection of a killed holder may take to be noticed by PostgreSQL."""
RETRY_S = 0.1
RELEASE_S = 3.0
ENDED_S = 10.0
"""How long the statements of earlier holders may take to end once they are told to."""

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
CONNECTION_SETTINGS = {
    "application_name": "adserve_serving",
    "role": "adserve_catalogue",
    "search_path": "adserve",
    # A machine that vanishes without a word gives the lock up after half a minute.
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "4",
}


class Serving(StrEnum):
    """Where a process stands with the lock; shown in /readyz."""

    OUTSIDE = "outside"
    WAITING = "waiting"
    HOLDING = "holding"
    DISCONNECTED = "disconnected"
    LOST = "lost"
    SHARED = "shared"


class ServingLock:
    """`acquire`, call `keep` every BEAT_S, ask `may_serve` before each decision, and at the end `release`.

    `now_ms` is of one clock, in all of them, that nobody sets back.
    """

    def __init__(self, url: str, data_home: Path, holder: UUID, *, grace_s: float = GRACE_S) -> None:
        self.state = Serving.OUTSIDE
        self._url = url
        self._file = data_home / f"serving-{urlsplit(url).path[1:]}.lock"
        self._holder = holder
        self._grace_ms = round(grace_s * SECOND_MS)
        self._home = ""
        self._file_lock: int | None = None
        self._connection: asyncpg.Connection | None = None
        self._held_until_ms = 0

    def may_serve(self, now_ms: int) -> bool:
        """Whether no other process can be serving."""
        return now_ms < self._held_until_ms

    async def acquire(self, now_ms: int) -> None:
        """Takes both locks, or raises DatabaseRefused. May leave us WAITING for an earlier holder that may still serve."""
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._file_lock = try_lock(self._file)
        except OSError as error:
            raise DatabaseRefused(f"{error}: choose another ADSERVE_DATA_HOME") from error
        if self._file_lock is None:
            raise DatabaseRefused(f"another process serves with {self._file}: stop it first")
        self._home = _name_file(self._file_lock) or str(self._holder)
        try:
            await self._enter()
            await self._beat(now_ms)
        except BaseException:
            self._leave()
            raise

    async def keep(self, now_ms: int) -> None:
        """Says that we live, and takes the lock again when its connection has died; raises while that fails.

        Raises DatabaseRefused, and that for ever, once another process has taken the lock: what that one counted is
        unknown here, so only a restart helps.
        """
        if self.state is Serving.LOST:
            raise DatabaseRefused(
                "another process has taken the serving lock: no ads from this one until it restarts"
            )
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                if self._connection is None:
                    await self._come_back()
                if self._connection is not None:
                    await self._beat(now_ms)
        except BaseException:
            self._disconnect()
            raise

    async def end_others(self) -> None:
        """Returns when nothing commits any more that an earlier holder has asked for. To be called when we may serve.

        A statement of a process that was killed goes on until PostgreSQL notices, and may commit: whoever counts what is
        stored while it does so misses it, and allows one impression too many (I4). That a later epoch is open keeps it from storing
        what it has counted, too; but to open one is to wait for whoever is at it.
        """
        if self.state is not Serving.HOLDING:
            raise ConnectionError("the serving lock is not held")
        async with asyncio.timeout(ENDED_S):
            # As the login itself, which may end what it began: no role of ours may.
            connection = await asyncpg.connect(self._url)
            try:
                while await connection.fetch(SQL.end_others, str(self._holder)):  # noqa: ASYNC110 - it tells nobody
                    await asyncio.sleep(RETRY_S)
            finally:
                connection.terminate()

    async def release(self) -> None:
        """Lets the next process serve at once. To be called when the last request has been answered."""
        self._held_until_ms = 0
        if self._connection is not None:
            try:
                await self._connection.execute(SQL.release, self._holder, timeout=RELEASE_S)
                await self._connection.close(timeout=RELEASE_S)
            except Exception as error:  # the driver has many words for a lost connection
                log.warning("the serving lock could not be released cleanly: %r", error)
        self._leave()

    async def _enter(self) -> None:
        connection = self._connection = await self._connect()
        for _ in range(round(PATIENCE_S / RETRY_S)):
            if await connection.fetchval(SQL.try_lock):
                break
            await asyncio.sleep(RETRY_S)
        else:
            raise DatabaseRefused(
                "another process serves from this database, and with counters in memory only one may: stop it first"
            )
        await connection.execute(SQL.forget_old)
        await connection.execute(SQL.enter, self._holder, self._home)
        self.state = Serving.WAITING

    async def _beat(self, now_ms: int) -> None:
        assert self._connection is not None  # noqa: S101 - for the type checker
        if self.state is Serving.WAITING:
            wait_ms = await self._connection.fetchval(SQL.wait_ms, self._holder, self._home, self._grace_ms)
            if wait_ms > 0:
                log.info("an earlier process may still serve; waiting %d s at most", -(-wait_ms // SECOND_MS))
                return
        await self._connection.execute(SQL.beat, self._holder)
        # From before the beat was sent: whoever reads it in the row counts from later, and so waits for longer.
        self._held_until_ms = now_ms + self._grace_ms
        self.state = Serving.HOLDING

    async def _come_back(self) -> None:
        connection = self._connection = await self._connect()
        if await connection.fetchval(SQL.try_lock):
            came_back = bool(await connection.fetchval(SQL.come_back, self._holder))
        elif await connection.fetchval(SQL.last_holder) == self._holder:
            raise ConnectionError("PostgreSQL has not yet noticed that our old connection is dead")
        else:
            came_back = False
        if not came_back:
            self._held_until_ms = 0
            self.state = Serving.LOST
            raise DatabaseRefused("another process has taken the serving lock")
        self.state = Serving.WAITING

    async def _connect(self) -> asyncpg.Connection:
        return await asyncpg.connect(
            self._url, timeout=CONNECT_TIMEOUT_S, server_settings=CONNECTION_SETTINGS
        )

    def _disconnect(self) -> None:
        if self.state is not Serving.LOST:
            self.state = Serving.DISCONNECTED
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    def _leave(self) -> None:
        self._held_until_ms = 0
        self._disconnect()
        self.state = Serving.OUTSIDE
        if self._file_lock is not None:
            os.close(self._file_lock)
            self._file_lock = None


def _name_file(descriptor: int) -> str | None:
    """A name that no other file of any machine has while this one is open, or None where that is not to be had."""
    try:
        boot = BOOT_ID.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return None
    status = os.fstat(descriptor)
    return f"{boot}:{status.st_dev}:{status.st_ino}"
