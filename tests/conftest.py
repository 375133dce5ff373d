"""One PostgreSQL server for the whole run, one migrated template in it, and a database of its own for each test."""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from folders import new_home
from virtual_time import VirtualLoop
from waiting import PATIENCE_MS, PATIENCE_S

from adserve.database import fresh
from adserve.database.embedded import Embedded, start
from adserve.database.migrate import migrate
from adserve.database.pools import Pools, open_pools

BOUNDS = (
    "adserve.api.beacons.CLICK_RECORD_TIMEOUT_S",
    "adserve.bootstrap.peers.ANSWER_S",
    "adserve.metering.recorder.ANSWER_S",
    "adserve.metering.recorder.LEDGER_S",
    "adserve.metering.settle.SETTLE_TIMEOUT_S",
    "adserve.store.catalogue.ACQUIRE_TIMEOUT_S",
    "adserve.store.desk.ACQUIRE_TIMEOUT_S",
    "adserve.store.epochs.TIMEOUT_S",
    "adserve.store.journal.ACQUIRE_TIMEOUT_S",
    "adserve.store.keys.ACQUIRE_TIMEOUT_S",
    "adserve.store.ledger.TIMEOUT_S",
    "adserve.store.outcomes.TIMEOUT_S",
    "adserve.store.redis_node.CONNECT_MS",
    "adserve.store.redis_node.CONNECT_S",
    "adserve.store.redis_nodes.CONNECT_MS",
    "adserve.store.shared_counters.CONNECT_MS",
    "adserve.store.spools.TIMEOUT_S",
)
"""After which adserve gives something up, and which a machine that stalls may take."""

TEST_START_MS = 1_767_225_600_000  # 2026-01-01T00:00:00Z


@dataclass
class TestClock:
    """A clock that stands still until it is told to move."""

    __test__ = False
    now_ms: int = TEST_START_MS

    def __call__(self) -> int:
        return self.now_ms

    def advance(self, duration_ms: int) -> None:
        self.now_ms += duration_ms


class Template(NamedTuple):
    """A migrated database that nobody is connected to."""

    server_url: str
    name: str


class Server:
    """Started on first use, so that a run without database tests does without it."""

    def __init__(self) -> None:
        self._homes = ExitStack()
        self._embedded: Embedded | None = None
        self._template: Template | None = None

    def template(self) -> Template:
        if self._template is None:
            server_url = os.environ.get("ADSERVE_DATABASE_URL") or self._start()
            self._template = Template(server_url, f"adserve_test_{secrets.token_hex(6)}")
            migrate(asyncio.run(fresh.create(*self._template)), lambda _: None)
        return self._template

    def stop(self) -> None:
        if self._template is not None:
            asyncio.run(fresh.drop(*self._template))
        if self._embedded is not None:
            asyncio.run(self._embedded.stop())
        self._homes.close()

    def _start(self) -> str:
        home = self._homes.enter_context(new_home())
        self._embedded = asyncio.run(start(home, lambda _: None))
        return self._embedded.url


def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    if item.get_closest_marker("virtual_time"):
        return {"virtual": VirtualLoop}
    return {"real": asyncio.new_event_loop}


_server = pytest.StashKey[Server]()


def pytest_configure(config: pytest.Config) -> None:
    # Or each process that a test starts would compile all of the program anew.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    config.stash[_server] = Server()


def pytest_unconfigure(config: pytest.Config) -> None:
    config.stash[_server].stop()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Every xdist worker copies the template of the process that started them, which outlives them all."""
    node.workerinput["template"] = tuple(node.config.stash[_server].template())


@pytest.fixture(scope="session")
def template(request: pytest.FixtureRequest) -> Template:
    workerinput: dict[str, Any] = getattr(request.config, "workerinput", {})
    return Template(*workerinput["template"]) if workerinput else request.config.stash[_server].template()


@pytest.fixture(scope="session")
def server_url(template: Template) -> str:
    """A superuser's URL of some database of the server, to make others beside it."""
    return template.server_url


@pytest.fixture
async def database_url(template: Template) -> AsyncIterator[str]:
    """A database of this test's own: migrated, empty, on a server that keeps what it acknowledges."""
    name = f"{template.name}_{secrets.token_hex(4)}"
    yield await fresh.create(template.server_url, name, template.name)
    await fresh.drop(template.server_url, name)


@pytest.fixture
async def pools(database_url: str) -> AsyncIterator[Pools]:
    opened = await open_pools(database_url)
    yield opened
    await opened.close()


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bound on time is short where a test is to meet it, and nowhere else."""
    for bound in BOUNDS:
        monkeypatch.setattr(bound, PATIENCE_MS if bound.endswith("_MS") else PATIENCE_S)


@pytest.fixture
def clock() -> TestClock:
    return TestClock()


@pytest.fixture
def empty_home() -> Iterator[Path]:
    """An empty data home, for a server of this test's own."""
    with new_home() as folder:
        yield folder
