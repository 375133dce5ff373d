"""Commands on the run's own PostgreSQL server, and the databases that they keep."""

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import asyncpg
import pytest
from commands_run import Adserve, Ended, Kept, environment, run

from adserve.database import fresh


@pytest.fixture
def surroundings(server_url: str, tmp_path: Path) -> dict[str, str]:
    """Of a command that makes a database of its own."""
    return environment(server_url, tmp_path / "home")


@pytest.fixture
def adserve(surroundings: dict[str, str]) -> Adserve:
    return partial(run, surroundings)


@pytest.fixture
async def kept(server_url: str) -> AsyncIterator[Kept]:
    """Connects to the database that a command kept; it is dropped after the test."""
    opened: dict[str, asyncpg.Connection] = {}

    async def connect(ended: Ended) -> asyncpg.Connection:
        name = ended.database_url.rpartition("/")[2]
        opened[name] = await asyncpg.connect(ended.database_url, server_settings={"search_path": "adserve"})
        return opened[name]

    yield connect
    for name, connection in opened.items():
        await connection.close()
        await fresh.drop(server_url, name)
