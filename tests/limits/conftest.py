from collections.abc import Iterator
from typing import Any

import pytest
from counting import KINDS
from redis_servers import RedisCluster, RedisServer, needs_redis
from shared import FreshCounters

SHARED = ("redis", "cluster")
EVERY_KIND = [*sorted(KINDS), *(pytest.param(kind, marks=needs_redis) for kind in SHARED)]


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    server = RedisServer()
    yield server.url
    server.end()


@pytest.fixture(scope="session")
def cluster_url() -> Iterator[str]:
    cluster = RedisCluster()
    yield cluster.url
    cluster.end()


@pytest.fixture(params=EVERY_KIND)
async def counters(request: pytest.FixtureRequest) -> Any:
    """Empty counters of epoch 1, of every kind."""
    if request.param in KINDS:
        yield KINDS[request.param](1)
        return
    shared = FreshCounters(request.getfixturevalue(f"{request.param}_url"), 1)
    yield shared
    shared.close()
