from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from adserve.database.embedded import Embedded, start


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
