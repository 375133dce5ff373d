"""Commands as a person runs them: a process each, on the run's own PostgreSQL server."""

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import asyncpg
import pytest

from adserve.database import fresh

ENDS_WITHIN_S = 1_200
KEPT = "kept: "


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    said: str

    @property
    def database_url(self) -> str:
        """Of the database that it kept."""
        (line,) = (line for line in self.said.splitlines() if line.startswith(KEPT))
        return line.removeprefix(KEPT)


Adserve = Callable[..., Ended]


def environment(database_url: str, home: Path, **settings: object) -> dict[str, str]:
    """Nothing of the settings that the tests themselves were started with."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("ADSERVE_")}
    ours = {"database_url": database_url, "data_home": home, **settings}
    return others | {f"ADSERVE_{name.upper()}": str(value) for name, value in ours.items()}


def words(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "adserve", *map(str, arguments)]


def run(surroundings: dict[str, str], *arguments: object) -> Ended:
    ended = subprocess.run(  # noqa: S603 - our own program
        words(*arguments),
        env=surroundings,
        capture_output=True,
        text=True,
        timeout=ENDS_WITHIN_S,
        check=False,
    )
    return Ended(ended.returncode, ended.stdout, ended.stderr)


@pytest.fixture
def surroundings(server_url: str, tmp_path: Path) -> dict[str, str]:
    """Of a command that makes a database of its own."""
    return environment(server_url, tmp_path / "home")


@pytest.fixture
def adserve(surroundings: dict[str, str]) -> Adserve:
    return partial(run, surroundings)


Kept = Callable[[Ended], Awaitable[asyncpg.Connection]]


@pytest.fixture
async def kept(server_url: str) -> AsyncIterator[Kept]:
    """Connects to the database that a command kept; it is dropped after the test."""
    connections: list[asyncpg.Connection] = []
    names: list[str] = []

    async def connect(ended: Ended) -> asyncpg.Connection:
        connection = await asyncpg.connect(ended.database_url, server_settings={"search_path": "adserve"})
        connections.append(connection)
        names.append(ended.database_url.rpartition("/")[2])
        return connection

    yield connect
    for connection in connections:
        await connection.close()
    for name in names:
        await fresh.drop(server_url, name)
