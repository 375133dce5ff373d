"""Brings a database to the newest schema from a running program."""

import asyncio
import os
import sys
from collections.abc import Callable

from adserve.database.refusal import DatabaseRefused


async def update(url: str, progress: Callable[[str], None]) -> None:
    """Runs `adserve migrate` as a process of its own, so that a service never loads the migration tool. Raises
    DatabaseRefused with what it said."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "adserve", "migrate"),
        env={**os.environ, "ADSERVE_DATABASE_URL": url},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert child.stdout is not None  # noqa: S101 - for the type checker
    said = []
    try:
        async for line in child.stdout:
            said.append(line.decode(errors="replace").rstrip())
            progress(said[-1])
        status = await child.wait()
    except BaseException:
        child.kill()  # leaves whole revisions only
        raise
    if status != 0:
        raise DatabaseRefused("\n".join(said))
