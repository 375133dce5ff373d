"""Slots while a ramp is under way."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from market import EVERYBODY, NOW_MS, Market, make_ad, make_ask, per_click
from msgspec.structs import replace

from adserve.domain.ramps import Arm
from adserve.domain.rollouts import Stage, SurfaceRollout
from adserve.domain.slots import NoFill
from adserve.domain.time import MINUTE_MS
from adserve.limits.counters import MemoryCounters
from adserve.rollout.arms import arm_of
from adserve.rollout.assignments import Assignment, AssignmentLog
from adserve.rollout.figures import Figures, Minute, Saved
from adserve.selection.slots import Bounds, Parts
from adserve.selection.watched import Watched

STAGE = Stage(7, 0, NOW_MS)
PERCENT_BP, HOLDOUT_BP = 3_000, 1_000
CROWD = [f"u-{number}" for number in range(400)]
ARMS = {viewer: arm_of(viewer, "status", 7, PERCENT_BP, HOLDOUT_BP) for viewer in CROWD}


class Kept:
    def __init__(self) -> None:
        self.assignments: list[Assignment] = []
        self.minutes: list[Saved] = []

    async def assign(self, assignments: Sequence[Assignment]) -> None:
        self.assignments += assignments

    async def save_minutes(self, minutes: Sequence[Saved]) -> None:
        self.minutes = list(minutes)


class House:
    """A market whose slots are watched."""

    def __init__(self, **of_view: Any) -> None:
        self.kept = Kept()
        self.market = Market([make_ad(1), per_click(2, 500_000)], **of_view)
        self.log = AssignmentLog(self.kept, lambda _viewer, _at: False, lambda: None)
        self.figures = Figures(self.kept, lambda _now_ms: (0, 0.0))
        self.seconds = 0.0
        market = self.market
        parts = Parts(
            *(lambda: market.view, market.counters, market.hides, market.book, market.sealer),
            lambda: market.may_serve,
        )
        self.slots = Watched(
            parts,
            lambda: market.now_ms,
            lambda: 1,
            Bounds(),
            assignments=self.log,
            figures=self.figures,
            seconds=self._tick,
        )

    def _tick(self) -> float:
        self.seconds += 0.002
        return self.seconds

    def begin(self) -> None:
        view = self.market.view
        snapshot = replace(
            view.snapshot,
            rollouts={"status": SurfaceRollout(PERCENT_BP, HOLDOUT_BP)},
            stages={("status", None): STAGE},
        )
        self.market.view = view._replace(snapshot=snapshot)
        self.slots.follow(snapshot)

    async def noted(self) -> list[Assignment]:
        await self.log.step(NOW_MS)
        return self.kept.assignments

    async def minute(self) -> Minute | None:
        await self.figures.step(NOW_MS)
        return self.kept.minutes[0].counts if self.kept.minutes else None


async def test_both_arms_are_noted_by_the_same_trigger_and_nobody_else_is() -> None:
    house = House()
    house.begin()
    for viewer in CROWD * 2:
        decision = await house.slots.answer(make_ask(viewer))
        assert bool(decision.placements) is (ARMS[viewer] is Arm.EXPOSED)
        assert all(placement.ticket.arm == "exposed" for placement in decision.placements)
    noted = {each.viewer: each.standing for each in await house.noted()}
    assert noted.keys() == {make_ask(viewer).viewer.cap for viewer in CROWD if ARMS[viewer] is not Arm.NONE}
    assert len(noted) == len(house.kept.assignments)
    arms = Counter(standing.arm for standing in noted.values())
    assert arms == Counter(arm for arm in ARMS.values() if arm is not Arm.NONE)
    assert {standing.stage for standing in noted.values()} == {STAGE}


class FailingCounters(MemoryCounters):
    async def recall(self, *_: Any) -> Any:
        raise TimeoutError


async def test_what_becomes_of_a_decision_does_not_tell_the_arms_apart() -> None:
    house = House()
    house.market.counters = FailingCounters(1)
    house.slots._measured._counters = house.slots._slots._counters = house.market.counters
    house.begin()
    for viewer in CROWD:
        assert (await house.slots.answer(make_ask(viewer))).no_fill is NoFill.DEADLINE
    assert len(await house.noted()) == sum(arm is not Arm.NONE for arm in ARMS.values())
    minute = await house.minute()
    assert minute is not None
    assert minute.errors == minute.decisions == sum(arm is Arm.EXPOSED for arm in ARMS.values())


async def test_how_the_exposed_are_served_is_measured() -> None:
    house = House()
    house.begin()
    exposed = [viewer for viewer in CROWD if ARMS[viewer] is Arm.EXPOSED]
    for viewer in CROWD:
        await house.slots.answer(make_ask(viewer))
        house.slots.wrapped(make_ask(viewer), 0.004)
    await house.slots.answer(make_ask(exposed[0], floor_micros=1 << 40))
    minute = await house.minute()
    assert minute is not None
    assert (minute.decisions, minute.looked, minute.unfilled) == (len(exposed) + 1, len(exposed) + 1, 1)
    assert minute.placed == len(exposed)  # of the two, one is paid by the click
    assert minute.predicted == pytest.approx(0.01 * minute.placed)
    assert max(range(41), key=minute.decision_ms.__getitem__) == 10  # 2 ms
    assert sum(minute.feed_ms) == len(exposed)


@pytest.mark.parametrize("closed", [{"paused": True}, {"fresh_at_ms": NOW_MS - 10 * MINUTE_MS}])
async def test_while_nobody_may_see_ads_nobody_is_compared(closed: Any) -> None:
    house = House(**closed)
    house.begin()
    for viewer in CROWD:
        assert not (await house.slots.answer(make_ask(viewer))).placements
    assert await house.noted() == []


async def test_without_a_ramp_nothing_is_noted_and_tickets_are_of_no_arm() -> None:
    house = House(rollout=EVERYBODY)
    house.slots.follow(house.market.view.snapshot)
    decision = await house.slots.answer(make_ask(CROWD[0]))
    house.slots.wrapped(make_ask(CROWD[0]), 0.004)
    assert [placement.ticket.arm for placement in decision.placements] == ["none"] * 2
    assert (await house.noted(), await house.minute()) == ([], None)


async def test_a_ramp_elsewhere_leaves_viewers_alone() -> None:
    house = House()
    snapshot = replace(house.market.view.snapshot, stages={("stories", None): STAGE})
    house.market.view = house.market.view._replace(snapshot=snapshot)
    house.slots.follow(snapshot)
    decision = await house.slots.answer(make_ask(CROWD[0]))
    assert {placement.ticket.arm for placement in decision.placements} == {"none"}
    assert await house.noted() == []


async def test_a_viewer_who_cannot_be_placed_is_answered_as_ever() -> None:
    """From a header that is no text in UTF-8."""
    house = House()
    house.begin()
    odd = make_ask("u")
    odd = replace(odd, viewer=replace(odd.viewer, raw="\udcff"))
    assert (await house.slots.answer(odd)).no_fill is NoFill.DEGRADED
    assert await house.noted() == []
