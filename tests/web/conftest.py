from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from service import Service, running

from adserve.database.pools import Pools


@pytest.fixture
async def service(pools: Pools, clock: Callable[[], int], tmp_path: Path) -> AsyncIterator[Service]:
    async with running(pools, clock, tmp_path) as service:
        yield service
