"""Starts the processes under load, and gives every process its core."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

from loadtest.servers import Ready, Wanted

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


@asynccontextmanager
async def serving(kind: str, core: int, wanted: Wanted) -> AsyncIterator[Ready]:
    """A server of loadtest/servers.py for as long as the context lasts."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "loadtest.servers", kind, str(core),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        start_new_session=True,  # an interrupt is for us, who then end it in order
    )  # fmt: skip
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
