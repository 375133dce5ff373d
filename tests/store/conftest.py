import pytest
from world import World, make_world

from adserve.database.pools import Pools


@pytest.fixture
async def world(pools: Pools) -> World:
    return await make_world(pools)
