"""An erased viewer is gone from every place there is, stays gone, and leaves the books as they were."""

import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from erasable import Place, serving
from redis_servers import RedisServer, needs_redis

from adserve.access.keys import Scope
from adserve.domain.time import DAY_MS, from_ms
from adserve.limits.rules import RETENTION_MS
from adserve.metering.erasing import IN_FLIGHT_MS
from adserve.metering.spooled import LOOK_MS
from adserve.store.books import reconciled
from adserve.store.errors import Away

VIEWER, OTHER = "u-to-be-forgotten", "u-who-stays"
STORED = {
    "viewer_caps",
    "viewer_log",
    "pending_events",
    "quarantined_events",
    "recorded_decisions",
    "arm_viewers",
    "spool",
}
MEMORY = {
    "memory of counters",
    "memory of hides",
    "memory of intake",
    "memory of assignments",
    "counter_checkpoints",
}


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


async def nothing_is_left(place: Place, everywhere: set[str], redis_url: str | None = None) -> None:
    late = (await place.seen_everywhere(VIEWER, OTHER))[VIEWER]
    before = await reconciled(place.core.pools.analyst)
    assert await place.found(VIEWER, redis_url) == await place.found(OTHER, redis_url) == everywhere
    told = await asked(place)
    assert told["state"] == "erasing"
    assert told["held"] == {
        "events": 3,
        "waiting": 2,
        "decisions": 5,
        "compared": 1,
        "counted": 6,
        "hides": 1,
        "requests": 5,
    }
    await place.erase_now()
    assert await place.found(VIEWER, redis_url) == set()
    assert await place.found(OTHER, redis_url) == everywhere
    after = await reconciled(place.core.pools.analyst)
    assert (after, after.exact) == (before, True)
    again = await asked(place)
    assert (again["id"], again["state"]) == (told["id"], "erased")
    assert set(again["held"].values()) == {0}
    assert await place.outcomes(late) == ["recorded"]
    assert await place.outcomes(late, kind="hide") == ["unbilled_kind"]
    place.clock.skip(LOOK_MS)
    await place.run()
    assert await place.found(VIEWER, redis_url) == set()
    settled = await reconciled(place.core.pools.analyst)
    assert settled.exact
    assert settled.events == before.events + 6  # the late ones, and for each viewer the two that waited


async def test_nothing_is_left_of_an_erased_viewer_and_the_books_still_prove(place: Place) -> None:
    await nothing_is_left(place, STORED | MEMORY)


@needs_redis
async def test_nothing_is_left_in_shared_counters(database_url: str, tmp_path: Path) -> None:
    server = RedisServer()
    try:
        async with serving(database_url, tmp_path, redis_url=server.url) as place:
            await place.furnish()
            await nothing_is_left(
                place,
                STORED
                | {
                    "memory of counters",
                    "memory of hides",
                    "memory of intake",
                    "memory of assignments",
                    "redis",
                },
                server.url,
            )
    finally:
        server.end()


async def test_no_table_and_no_log_has_an_id_as_it_came(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    """Also where the feed service makes its ids of outcomes out of those of viewers."""
    with caplog.at_level(logging.DEBUG):
        await place.seen_everywhere(VIEWER)
        assert await place.fared(VIEWER, f"session of {VIEWER}", f"{VIEWER} again") == [
            "duplicate",
            "recorded",
        ]
        await place.call(
            "/v1/outcomes", {"outcomes": [{"id": VIEWER, "viewer": VIEWER, "surface": VIEWER}]}, Scope.FEED
        )
        await place.run()
    assert await place.tables_with(VIEWER) == set()
    assert VIEWER not in caplog.text
    await place.core.pools.recorder.execute(
        "INSERT INTO arm_viewers VALUES (7, now(), $1, 'control', now())", VIEWER.encode()
    )
    assert await place.tables_with(VIEWER) == {"arm_viewers"}


class Forgetful:
    """Leaves one thing undone."""

    def __init__(self, whole: Any, undone: str) -> None:
        self._whole = whole
        self._undone = undone

    def __getattr__(self, name: str) -> Any:
        return self._nothing if name == self._undone else getattr(self._whole, name)

    async def _nothing(self, *_: object) -> None: ...


FORGETFUL = {
    ("_store", "forget_maps"): {"viewer_caps", "viewer_log"},
    ("_store", "forget_decisions"): {"recorded_decisions"},
    ("_store", "strip_waiting"): {"pending_events", "quarantined_events"},
    ("_outcomes", "erase"): {"arm_viewers"},
    ("_counters", "erase"): {"memory of counters", "counter_checkpoints"},
}


async def test_control_what_is_forgotten_to_be_erased_is_found(place: Place) -> None:
    viewers = {f"u-{undone}": (part, undone) for part, undone in FORGETFUL}
    await place.seen_everywhere(*viewers)
    erasing: Any = place.core.privacy._erasing
    for viewer, (part, undone) in viewers.items():
        await asked(place, viewer)
        whole = getattr(erasing, part)
        setattr(erasing, part, Forgetful(whole, undone))
        await place.erase_now()
        assert await place.found(viewer) == FORGETFUL[part, undone]
        setattr(erasing, part, whole)
        assert (await asked(place, viewer))["state"] == "erasing"  # something is held: it begins anew
        await place.erase_now()
        assert await place.found(viewer) == set()


class Broken(Forgetful):
    async def _nothing(self, *_: object) -> None:
        raise Away("in the middle")


async def test_an_erasure_that_was_cut_short_is_taken_up_again(database_url: str, tmp_path: Path) -> None:
    async with serving(database_url, tmp_path) as place:
        await place.furnish()
        late = (await place.seen_everywhere(VIEWER))[VIEWER]
        told = await asked(place)
        erasing: Any = place.core.privacy._erasing
        erasing._counters = Broken(erasing._counters, "erase")
        with pytest.raises(Away):
            await place.erase_now()
        assert await place.found(VIEWER) >= MEMORY - {
            "memory of hides",
            "memory of intake",
            "memory of assignments",
        }
    async with serving(database_url, tmp_path) as place:
        assert "memory of counters" in await place.found(VIEWER)  # of the checkpoint
        assert (await asked(place))["id"] == told["id"]
        await place.erase_now()
        assert await place.outcomes(late) == ["recorded"]
        await place.run()
        assert await place.found(VIEWER) == set()


async def test_while_it_goes_on_nothing_new_is_kept_and_afterwards_the_viewer_is_somebody_new(
    place: Place,
) -> None:
    shown = await place.tickets(VIEWER)
    assert await place.outcomes(*shown) == ["recorded", "recorded"]
    await asked(place)
    await place.core.privacy.erase(place.clock())  # which is when a process hears of it
    (free,) = await place.tickets(VIEWER)  # the capped one is withheld
    assert await place.outcomes(free) == ["recorded"]
    earlier = from_ms(place.clock()).isoformat()
    assert await place.fared(VIEWER, "s-1", occurred_at=earlier) == ["not_compared"]
    await place.run()
    place.clock.skip(IN_FLIGHT_MS)
    await place.run()
    assert await place.found(VIEWER) == set()
    place.clock.skip(1_000)
    await place.run()
    assert await place.fared(VIEWER, "s-1", occurred_at=earlier) == ["not_compared"]
    assert await place.fared(VIEWER, "s-2") == ["recorded"]
    again = await place.tickets(VIEWER)
    assert await place.outcomes(*again) == ["recorded", "recorded"]
    assert await place.found(VIEWER) >= {"viewer_caps", "viewer_log", "memory of counters"}


async def test_an_export_shows_all_that_is_held_and_it_is_written_down_who_asked(place: Place) -> None:
    await place.seen_everywhere(VIEWER, OTHER)
    status, shown = await place.call("/v1/viewers/export", {"viewer": VIEWER})
    assert status == 202
    assert sorted(event["kind"] for event in shown["events"]) == ["hide", "impression", "impression"]
    assert len(shown["waiting"]) == 2
    assert len(shown["decisions"]) == 5
    assert [(held["arm"], held["session_seconds"]) for held in shown["compared"]] == [("exposed", 300)]
    assert (
        sorted(entry["state"] for entry in shown["counted"]["entries"])
        == ["confirmed"] * 2 + ["reserved"] * 4
    )
    assert (len(shown["counted"]["hides"]), sorted(shown["counted"]["requests"])) == (
        1,
        ["r-1", "r-2", "r-3", "r-4", "r-5"],
    )
    _, nobody = await place.call("/v1/viewers/export", {"viewer": "nobody"})
    assert nobody | {"at": None} == {
        "at": None,
        "events": [],
        "waiting": [],
        "decisions": [],
        "compared": [],
        "counted": {"entries": [], "hides": {}, "requests": []},
    }
    told = await asked(place)
    calls = await place.core.pools.operator.fetch(
        "SELECT call, erasure::text, key_name FROM viewer_calls ORDER BY id"
    )
    by = "the operator's"
    assert [*map(tuple, calls)] == [*[("export", None, by)] * 2, ("erase", told["id"], by)]
    for path in ("/v1/viewers/erase", "/v1/viewers/export"):
        assert (await place.call(path, {"viewer": VIEWER}, Scope.FEED))[0] == 403
        status, problem = await place.call(path, {"viewer": ""})
        assert (status, problem["errors"][0]["field"]) == (400, "$.viewer")


async def test_two_hundred_days_later_nobody_is_known_any_more(place: Place) -> None:
    await place.seen_everywhere(VIEWER)
    assert await place.found(VIEWER) == STORED | MEMORY
    place.clock.skip(RETENTION_MS - DAY_MS)
    await place.run()
    assert await place.found(VIEWER) >= MEMORY - {"memory of intake"} | {
        "viewer_caps",
        "viewer_log",
        "quarantined_events",
    }
    place.clock.skip(3 * DAY_MS)
    await place.run()
    await place.run()
    assert await place.found(VIEWER) == set()
    assert (await reconciled(place.core.pools.analyst)).exact
