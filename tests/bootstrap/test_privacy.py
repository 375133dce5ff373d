"""An erased viewer is gone from every place there is, stays gone, and leaves the books as they were."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from erasable import Place, serving
from redis_servers import RedisServer, needs_redis

from adserve.domain.time import DAY_MS, HOUR_MS
from adserve.metering.erasing import IN_FLIGHT_MS
from adserve.store.books import reconciled

VIEWER, OTHER = "u-to-be-forgotten", "u-who-stays"
TABLES = {"viewer_caps", "viewer_log", "pending_events", "quarantined_events", "recorded_decisions"}
MEMORY = {"memory of counters", "memory of hides"}


@pytest.fixture
async def place(database_url: str, tmp_path: Path) -> AsyncIterator[Place]:
    async with serving(database_url, tmp_path) as place:
        await place.furnish()
        yield place


async def asked(place: Place, viewer: str = VIEWER) -> dict[str, Any]:
    status, answer = await place.call("/v1/viewers/erase", {"viewer": viewer})
    assert status == 202, answer
    told: dict[str, Any] = answer
    return told


async def test_nothing_is_left_of_an_erased_viewer_and_the_books_still_prove(place: Place) -> None:
    late = (await place.seen_everywhere(VIEWER, OTHER))[VIEWER]
    before = await reconciled(place.core.pools.analyst)
    others = await place.found(OTHER)
    assert await place.found(VIEWER) == TABLES | MEMORY | {"counter_checkpoints"} == others
    told = await asked(place)
    assert told["state"] == "erasing"
    assert told["held"] == {"events": 3, "waiting": 2, "decisions": 4, "counted": 5, "hides": 1, "requests": 4}
    await place.erase_now()
    assert await place.found(VIEWER) == set()
    assert await place.found(OTHER) == others
    after = await reconciled(place.core.pools.analyst)
    assert (after, after.exact) == (before, True)
    again = await asked(place)
    assert (again["id"], again["state"]) == (told["id"], "erased")
    assert set(again["held"].values()) == {0}
    assert await place.outcomes(late) == ["recorded"]
    assert await place.outcomes(late, kind="hide") == ["unbilled_kind"]
    await place.run()
    assert await place.found(VIEWER) == set()
    settled = await reconciled(place.core.pools.analyst)
    assert settled.exact
    assert settled.events == before.events + 4  # the late ones, and for each viewer the one that waited
