"""A ramp at work in a whole service: from slot requests, events and outcomes to what its step has seen."""

from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from erasable import Place, serving
from msgspec.structs import replace
from ramping import begin_ramp, enter_step, viewers_of

from adserve.bootstrap.outcomes import Judged
from adserve.catalogue.snapshot import EMPTY
from adserve.domain.ramps import Arm, Evidence, Metric, Plan, Ramp, Status, Step
from adserve.domain.rollouts import Stage
from adserve.domain.time import SECOND_MS
from adserve.limits.erased import Erased
from adserve.prediction.prior import Prior
from adserve.selection.state import View
from adserve.store import evidence
from adserve.store.evidence import gather
from adserve.store.outcomes import EVENTS_LAG_MS

PERCENT_BP, HOLDOUT_BP = 2_500, 1_000
PLAN = Plan("status", (Step(PERCENT_BP, 60), Step(10_000, 60)), ())
EACH = 12


@pytest.fixture
async def place(database_url: str, tmp_path: Path) -> AsyncIterator[Place]:
    async with serving(database_url, tmp_path) as place:
        await place.furnish()
        await place.core.pools.operator.execute(
            "UPDATE ramps SET status = 'aborted'"
        )  # that of the furniture
        yield place


async def begin(place: Place) -> tuple[int, int]:
    entered_ms = place.clock()
    ramp = await begin_ramp(place.core.pools, entered_ms, PERCENT_BP, HOLDOUT_BP)
    await place.run()
    return ramp, entered_ms


async def seen(place: Place, ramp: int, step: int, entered_ms: int) -> Evidence:
    standing = Ramp(ramp, PLAN, Status.RUNNING, step, entered_ms, 0, "")
    return await gather(place.core.pools.operator, standing, place.clock())


async def test_a_step_sees_who_was_assigned_and_what_became_of_them(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evidence, "LEAST_SEEN", 5)
    ramp, entered_ms = await begin(place)
    arms = {arm: viewers_of(arm, ramp, PERCENT_BP, HOLDOUT_BP, EACH) for arm in Arm}
    for arm, viewers in arms.items():
        for viewer in viewers:
            shown = await place.tickets(viewer)
            assert bool(shown) is (arm is Arm.EXPOSED)
            if shown:
                assert await place.outcomes(*shown) == ["recorded"] * len(shown)
                assert await place.outcomes(shown[0], kind="hide") == ["unbilled_kind"]
            expected = "not_compared" if arm is Arm.NONE else "recorded"
            assert await place.fared(viewer, f"s-{viewer}", statuses_viewed=20) == [expected]
    place.clock.skip(EVENTS_LAG_MS + 2 * SECOND_MS)
    for _ in range(3):  # bit by bit
        await place.run()
    told = await seen(place, ramp, 0, entered_ms)
    assert (told.exposed, told.control, told.exposed_share) == (EACH, EACH, 0.5)
    assert [arm.x for arm in told.compared[Metric.STATUSES_VIEWED]] == [20 * EACH] * 2
    hides, load = told.of_exposed[Metric.HIDE_RATE], told.of_exposed[Metric.AD_LOAD]
    assert (hides.viewers, hides.x, hides.y) == (EACH, EACH, 2 * EACH)
    assert (load.x, load.y) == (2 * EACH, EACH)
    assert told.operational[Metric.NO_FILL] == told.operational[Metric.ERRORS] == 0
    assert 0 < told.operational[Metric.DECISION_P99_MS] < 1_000
    decided = "SELECT DISTINCT arm FROM events"
    assert [arm for (arm,) in await place.core.pools.recorder.fetch(decided)] == ["exposed"]


async def test_in_the_last_step_the_holdout_is_the_control_and_sees_no_ad(place: Place) -> None:
    ramp, _ = await begin(place)
    entered_ms = place.clock()
    await enter_step(place.core.pools, ramp, 1, entered_ms, 10_000)
    await place.run()
    held = viewers_of(Arm.CONTROL, ramp, 10_000, HOLDOUT_BP, EACH)
    for viewer in held:
        assert await place.tickets(viewer) == []
    await place.run()
    told = await seen(place, ramp, 1, entered_ms)
    assert (told.exposed, told.control, told.exposed_share) == (0, EACH, 0.9)


async def test_a_shutdown_writes_down_whom_it_has_noted(database_url: str, tmp_path: Path) -> None:
    async with serving(database_url, tmp_path) as place:
        await place.furnish()
        await place.tickets("u-1")
        await place.core.judged.hand_over(place.clock())
        rows = await place.core.pools.recorder.fetch("SELECT arm FROM arm_viewers")
        minutes = await place.core.pools.recorder.fetch("SELECT decisions FROM ramp_minutes")
    assert [arm for (arm,) in rows] == ["exposed"]
    assert [count for (count,) in minutes] == [1]


class Uncountable:
    """A store that cannot count the events of one ramp's step."""

    def __init__(self) -> None:
        self.done: list[object] = []

    async def count_events(self, _surface: str, stage: Stage, _now_ms: int) -> None:
        self.done.append(stage.ramp)
        if stage.ramp == 1:
            raise TimeoutError

    async def compact(self) -> None:
        self.done.append("compact")


async def test_a_step_that_cannot_be_counted_keeps_no_other_from_being() -> None:
    stages = {("status", None): Stage(1, 0, 0), ("status", "ID"): Stage(2, 0, 0)}
    pools: Any = SimpleNamespace(recorder=None)
    view = View(replace(EMPTY, stages=stages), {}, {}, Prior({}), False, 0)
    judged = Judged(pools, UUID(int=1), Erased(), lambda _: (0, 0.0), lambda: view)
    store: Any = Uncountable()
    judged.store = store
    with pytest.raises(TimeoutError):
        await judged.count(0)
    assert set(store.done) == {1, 2, "compact"}
