"""Starts the processes under load, and gives every process its core."""

import asyncio
import os
import shutil
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import aiohttp
import msgspec

from loadtest.generator import HOST
from loadtest.servers import Ready, Wanted

CORES = os.sched_getaffinity(0)
"""Before this process keeps to one of them."""
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0


class Cores(NamedTuple):
    """Where there is one core only, it is both."""

    server: int
    generator: int

    @property
    def apart(self) -> bool:
        return self.server != self.generator


class NotServing(Exception):
    """A process ended before it served."""


def cores() -> Cores:
    available = sorted(os.sched_getaffinity(0))
    return Cores(available[0], available[-1])


def cpu_s(pid: int) -> float:
    """What a process has used of its core so far: unlike the clock, it does not run while others have the core."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_mb(pid: int) -> float:
    """What a process has in memory."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@asynccontextmanager
async def redis(core: int) -> AsyncIterator[str | None]:
    """The URL of a Redis of our own that keeps nothing; None where there is none to start."""
    program = shutil.which("redis-server")
    if program is None:
        yield None
        return
    port = _free_port()
    process = await asyncio.create_subprocess_exec(
        program, "--bind", HOST, "--port", str(port), "--save", "", "--appendonly", "no",
        stdout=asyncio.subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip  # laid out as rows
    try:
        os.sched_setaffinity(process.pid, {core})
        await _listens(port)
        yield f"redis://{HOST}:{port}/0"
    finally:
        process.terminate()
        await process.wait()


@asynccontextmanager
async def workers(count: int, settings: Mapping[str, object]) -> AsyncIterator[Ready]:
    """`adserve serve --workers` on every core, with nothing but these settings."""
    port = _free_port()
    ours = {f"ADSERVE_{name.upper()}": str(value) for name, value in settings.items()}
    others = {name: value for name, value in os.environ.items() if not name.startswith("ADSERVE_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "adserve", "serve", "--workers", str(count),
        env=others | ours | {"ADSERVE_PORT": str(port)}, start_new_session=True,
    )  # fmt: skip  # laid out as rows
    try:
        os.sched_setaffinity(process.pid, CORES)  # and its workers after it
        serving_all = asyncio.create_task(_all_serve(port, count))
        ended = asyncio.create_task(process.wait())
        await asyncio.wait({serving_all, ended}, timeout=START_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
        if not serving_all.done():
            serving_all.cancel()
            raise NotServing(f"{count} workers did not come to serve")
        await serving_all
        yield Ready(port, process.pid)
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def _all_serve(port: int, count: int) -> None:
    async with aiohttp.ClientSession() as session:
        while True:
            with suppress(aiohttp.ClientError):
                async with session.get(f"http://{HOST}:{port}/readyz") as answer:
                    parts = (await answer.json())["parts"]
                    if parts["workers"]["detail"].startswith(f"{count} of {count}"):
                        return
            await asyncio.sleep(0.2)


async def _listens(port: int) -> None:
    async with asyncio.timeout(START_TIMEOUT_S):
        while True:
            with suppress(OSError):
                (await asyncio.open_connection(HOST, port))[1].close()
                return
            await asyncio.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def serving(kind: str, core: int, wanted: Wanted) -> AsyncIterator[Ready]:
    """A server of loadtest/servers.py for as long as the context lasts."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "loadtest.servers", kind, str(core),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        start_new_session=True,  # an interrupt is for us, who then end it in order
    )  # fmt: skip  # laid out as rows
    assert process.stdin is not None  # noqa: S101 - for the type checker
    assert process.stdout is not None  # noqa: S101 - for the type checker
    try:
        process.stdin.write(msgspec.json.encode(wanted) + b"\n")
        async with asyncio.timeout(START_TIMEOUT_S):
            line = await process.stdout.readline()
        if not line:
            raise NotServing(f"{kind} ended before it served")
        yield msgspec.json.decode(line, type=Ready)
    finally:
        process.stdin.close()
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
