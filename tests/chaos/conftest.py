"""Replicas with data homes and databases of their own. A module's tests share them: a start takes seconds."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from folders import new_home
from live import Caller, Live, calling, furnish

from adserve.database import fresh


@contextmanager
def new_database(template: Any) -> Iterator[str]:
    """A migrated database on the run's own server, for tests that leave the server alone."""
    name = f"{template.name}_{secrets.token_hex(4)}"
    yield asyncio.run(fresh.create(template.server_url, name, template.name))
    asyncio.run(fresh.drop(template.server_url, name))


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    with new_home("chaos") as folder:
        yield folder


@pytest.fixture(scope="module")
def fresh_database_url(template: Any) -> Iterator[str]:
    with new_database(template) as url:
        yield url


@pytest.fixture(scope="session")
def furnished(template: Any) -> Iterator[tuple[Live, dict[str, str]]]:
    """A replica that shows ads, and its keys, for tests that leave it as it was."""
    with new_home("chaos") as folder, new_database(template) as url:
        live = Live(folder, database_url=url)
        live.start()
        try:
            yield live, asyncio.run(furnish(live, url))
        finally:
            live.end()


@pytest.fixture
def replica(furnished: tuple[Live, dict[str, str]]) -> Live:
    return furnished[0]


@pytest.fixture
async def client(furnished: tuple[Live, dict[str, str]]) -> AsyncIterator[Caller]:
    async with calling(*furnished) as caller:
        yield caller
