"""Several workers on one port, each a process of its own: starts them, starts them again, passes signals on."""

import asyncio
import logging
import os
import signal
import socket
import sys
import time
from asyncio.subprocess import Process

from adserve.bootstrap.peers import Switchboard
from adserve.bootstrap.service import bound
from adserve.settings import Settings

log = logging.getLogger(__name__)

BACKOFF_FIRST_S = 0.2
BACKOFF_MAX_S = 10.0
STEADY_S = 30.0
"""A worker that ran for so long is started again at once."""
STOP_S = 40.0
"""Longer than a worker takes to stop, even where PostgreSQL hangs."""


class Supervisor:
    """`run` is over when `stop` was called and every worker has ended, or when the first of them cannot serve."""

    def __init__(self, settings: Settings, database_url: str, workers: int) -> None:
        bound(settings).close()  # another service that shares it among its workers would share it with ours
        self._listener = bound(settings, shared=True)  # keeps the port ours; only the workers listen
        self.port = int(self._listener.getsockname()[1])
        self._environment = {
            **os.environ,
            "ADSERVE_DATABASE_URL": database_url,
            "ADSERVE_PORT": str(self.port),
        }
        self._workers = workers
        self._switchboard = Switchboard(workers)
        self._processes: dict[str, Process] = {}
        self._stopping = asyncio.Event()
        self._code = 0

    async def run(self) -> int:
        """The exit code."""
        try:
            async with asyncio.TaskGroup() as group:
                for nth in range(self._workers):
                    group.create_task(self._keep(f"{nth}"), name=f"worker {nth}")
        finally:
            self._listener.close()
        return self._code

    def stop(self) -> None:
        """Has every worker answer what it has taken, and end."""
        self._stopping.set()
        self.signal(signal.SIGTERM)
        asyncio.get_running_loop().call_later(STOP_S, self.signal, signal.SIGKILL)

    def pause(self) -> None:
        """Stops the ads of every worker, also of those that are started again, until the switch is moved."""
        self._switchboard.pause()
        self.signal(signal.SIGUSR1)

    def signal(self, number: signal.Signals) -> None:
        for process in self._processes.values():
            if process.returncode is None:
                process.send_signal(number)

    async def _keep(self, worker: str) -> None:
        backoff_s = BACKOFF_FIRST_S
        while not self._stopping.is_set():
            began_s = time.monotonic()
            code = await self._run(worker)
            if self._stopping.is_set():
                return
            # Nor will another: its reason stands in the log. SIGUSR1 ends one that does not hear it yet.
            if not self._switchboard.ever and code != -signal.SIGUSR1:
                self._code = code or 1
                self.stop()
                return
            if time.monotonic() - began_s > STEADY_S:
                backoff_s = BACKOFF_FIRST_S
            log.warning("a worker ended", extra={"worker": worker, "code": code, "again_in_s": backoff_s})
            await self._pause(backoff_s)
            backoff_s = min(backoff_s * 2, BACKOFF_MAX_S)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            pass

    async def _run(self, worker: str) -> int:
        ours, theirs = socket.socketpair()
        paused = self._switchboard.paused
        with theirs:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "adserve", "serve", "--worker", worker, "--link", str(theirs.fileno()),
                *(["--paused"] if paused else []),
                env=self._environment,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # an interrupt is for us, who then end it in order
            )  # fmt: skip  # laid out as rows
        self._processes[worker] = process
        if self._switchboard.paused and not paused:
            process.send_signal(signal.SIGUSR1)
        if self._stopping.is_set():
            process.send_signal(signal.SIGTERM)
        await self._switchboard.serve(worker, ours)
        return await process.wait()
