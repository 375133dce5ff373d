import asyncio
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest
from folders import new_home

from adserve.database.embedded import Embedded, start


@pytest.fixture(scope="session")
def prepared_home() -> Iterator[Path]:
    """The data home of a server that ran and was stopped: copying it is quicker than the first start of another."""
    with new_home() as home:
        asyncio.run(_run_once(home))
        (home / "postgres" / "address").unlink()
        yield home


async def _run_once(home: Path) -> None:
    embedded = await start(home, lambda _: None)
    await embedded.stop()


@pytest.fixture
def data_home(prepared_home: Path, empty_home: Path) -> Path:
    """A data home of this test's own, in which a server has run before."""
    subprocess.run(["cp", "-a", f"{prepared_home}/postgres", empty_home], check=True)
    return empty_home


@pytest.fixture
async def own_server(data_home: Path) -> AsyncIterator[Embedded]:
    """A server that a test may misconfigure or kill."""
    embedded = await start(data_home, lambda _: None)
    yield embedded
    await embedded.stop()


@pytest.fixture
async def connection(own_server: Embedded) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(own_server.url)
    yield connection
    connection.terminate()
