"""A PostgreSQL server of our own, in the data home, that lives exactly as long as we do."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import asyncpg

from adserve.database import fresh, installation
from adserve.database.file_lock import try_lock
from adserve.database.refusal import DatabaseRefused

DATABASE = "adserve"
POLL_S = 0.02
WATCH_S = 0.2
REFUSED_S = 5.0
ANSWER_S = 5.0
LOG_MAX_BYTES = 16 * 2**20

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "400",
    "shared_buffers": "256MB",
    "max_wal_size": "2GB",
    # After a crash everything is synced once, not file by file.
    "recovery_init_sync_method": "syncfs",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # Values of rows stay out of the log.
    "log_error_verbosity": "terse",
    "log_startup_progress_interval": "1s",
}

# What a server says that came too early: the one before it has not quite gone.
STILL_STOPPING = ("lock file", "pre-existing shared memory block")
PORT_TAKEN = "could not bind"
RECOVERY = ("not properly shut down", "syncing data directory", "resetting unlogged", "redo ")

Progress = Callable[[str], None]


class Embedded:
    """A server that we hold, or that another process holds and we joined."""

    def __init__(self, place: installation.Installation, progress: Progress) -> None:
        self.url = ""
        self._place = place
        self._progress = progress
        self._port: int | None = None
        self._lock: int | None = None
        self._server: subprocess.Popen[bytes] | None = None

    async def keep(self) -> None:
        """A task for as long as the server is needed: starts it again at the same address when it has died, and takes it
        over when the process that held it is gone. Until then connections fail."""
        while True:
            await asyncio.sleep(WATCH_S)
            try:
                await self.mend()
            except Exception as error:  # whatever it is: without this task the server never comes back
                self._progress(f"PostgreSQL was not started again: {error!r}")
                await asyncio.sleep(REFUSED_S if isinstance(error, DatabaseRefused) else WATCH_S)

    async def mend(self) -> None:
        """What `keep` does over and over; nothing while the server runs."""
        if self._server is not None:
            if self._server.poll() is None:
                return
            self._progress(f"PostgreSQL ended with status {self._server.returncode}; starting it again")
        elif self._lock is None:
            self._lock = try_lock(self._place.lock)
            if self._lock is None:
                return
            self._progress("the process that held PostgreSQL is gone; taking it over")
        await self._boot()

    async def stop(self) -> None:
        """Stops the server if we hold it: open transactions are rolled back, the rest is written out."""
        if self._server is not None and self._server.poll() is None:
            self._server.send_signal(signal.SIGINT)
            await asyncio.to_thread(self._server.wait)
        self._server = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def hold_or_join(self) -> None:
        while True:
            self._lock = try_lock(self._place.lock)
            if self._lock is not None:
                await asyncio.to_thread(installation.prepare, self._place, self._progress)
                await self._boot()
                return
            # A holder that still starts has published nothing, or an address that does not answer yet.
            self._port = _published_port(self._place.address)
            if self._port is not None and await _answers(self._place.url(self._port, "postgres")):
                self.url = self._place.url(self._port, DATABASE)
                self._progress(f"joined PostgreSQL on port {self._port}, data in {self._place.cluster}")
                return
            await asyncio.sleep(POLL_S)

    async def _boot(self) -> None:
        promised = self._port is not None  # somebody was told this address, so it must stay
        port = self._port or _published_port(self._place.address) or _free_port()
        while True:
            log_start = self._spawn(port)
            said = await self._until_ready(port, log_start)
            if said is None:
                break
            if any(sign in said for sign in STILL_STOPPING):
                self._interrupt_orphan()
            elif PORT_TAKEN not in said:
                raise DatabaseRefused(f"PostgreSQL did not start (log: {self._place.log}):\n{said}")
            elif not promised:
                port = _free_port()
            await asyncio.sleep(WATCH_S)
        self._port = port
        self.url = await fresh.ensure(self._place.url(port, "postgres"), DATABASE)
        _publish_port(self._place.address, port)
        self._progress(f"PostgreSQL on port {port}, data in {self._place.cluster}")

    def _spawn(self, port: int) -> int:
        """Starts the server; answers where in the log it begins to write."""
        if self._place.log.exists() and self._place.log.stat().st_size > LOG_MAX_BYTES:
            self._place.log.replace(self._place.log.with_suffix(".1"))
        settings = [f"--{name}={value}" for name, value in {**SETTINGS, "port": str(port)}.items()]
        with self._place.log.open("ab") as log:
            log_start = log.tell()  # before the server shares the file and moves on
            self._server = subprocess.Popen(  # noqa: S603 - our own program and arguments
                self._place.command("postgres", "-D", str(self._place.cluster), *settings),
                cwd=self._place.root,
                env=self._place.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C in a terminal is for us: we drain first, then stop it
            )
            return log_start

    async def _until_ready(self, port: int, log_start: int) -> str | None:
        """None as soon as the server answers, however long it recovers, or what it said before it ended."""
        assert self._server is not None  # noqa: S101 - for the type checker
        told = log_start
        while True:
            ended = self._server.poll() is not None
            with self._place.log.open("rb") as log:
                log.seek(told)
                news = log.read()
            whole_lines = news[: news.rfind(b"\n") + 1]
            told += len(whole_lines)
            for line in whole_lines.decode(errors="replace").splitlines():
                if any(sign in line for sign in RECOVERY):
                    self._progress("PostgreSQL: " + line.partition("LOG:")[2].strip())
            if ended:
                with self._place.log.open("rb") as log:
                    log.seek(log_start)
                    return log.read().decode(errors="replace")
            # The file first: a predecessor that lingers, or a stranger on this port, would answer too.
            pid, status = self._pid_file()
            if (
                pid == self._server.pid
                and status == "ready"
                and await _answers(self._place.url(port, "postgres"))
            ):
                return None
            await asyncio.sleep(POLL_S)

    def _pid_file(self) -> tuple[int | None, str]:
        """The process that has the cluster, and how far it has come."""
        try:
            # Bytes: one of the lines is the path, in whatever encoding.
            lines = (self._place.cluster / "postmaster.pid").read_bytes().split(b"\n")
            return int(lines[0]), lines[7].strip().decode("ascii")
        except (FileNotFoundError, ValueError, IndexError):
            return None, ""

    def _interrupt_orphan(self) -> None:
        """Ends a server of our cluster that outlived its process (it died before the server could ask to be told)."""
        pid, _ = self._pid_file()
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if pid is not None and Path(f"/proc/{pid}/cwd").samefile(self._place.cluster):
                os.kill(pid, signal.SIGINT)


async def start(data_home: Path, progress: Progress) -> Embedded:
    """Starts the server of `data_home`, or joins the one that another process has started there.

    Whoever holds the lock runs the server and publishes its port; everybody else uses it. The server goes when its holder
    goes, even by kill -9, and then one of those that joined and `keep` it takes it over on the same port, so that its URL
    stays good. Without `keep`, a joiner's connections just fail from then on. To be called from a thread that lives
    as long as the server shall: the kernel ends the server with that thread.

    `progress` hears where the data is and how far a recovery has come. Raises DatabaseRefused.
    """
    embedded = Embedded(installation.locate(data_home), progress)
    try:
        await embedded.hold_or_join()
    except BaseException as error:
        await embedded.stop()
        if isinstance(error, OSError | asyncpg.PostgresError):  # a full disk, a damaged data home
            raise DatabaseRefused(f"PostgreSQL cannot be started in {data_home}: {error}") from error
        raise
    return embedded


async def _answers(url: str) -> bool:
    try:
        connection = await asyncpg.connect(url, timeout=ANSWER_S)
    except (OSError, TimeoutError, asyncpg.CannotConnectNowError, asyncpg.ConnectionDoesNotExistError):
        return False
    await connection.close()
    return True


def _published_port(address: Path) -> int | None:
    try:
        return int(address.read_text(encoding="ascii"))
    except (FileNotFoundError, ValueError):
        return None


def _publish_port(address: Path, port: int) -> None:
    partial = address.with_suffix(".partial")
    partial.write_text(str(port), encoding="ascii")
    partial.replace(address)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
