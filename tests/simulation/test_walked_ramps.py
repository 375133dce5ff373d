"""Invented viewers, and plans that are walked among them."""

from collections.abc import Mapping
from itertools import islice

import numpy as np
import pytest
from msgspec.structs import replace

from adserve.domain.ramps import Direction, Evidence, Guardrail, Metric, Moments, OnBreach, Plan, Status, Step
from adserve.domain.time import DAY_MS, HOUR_MS, MINUTE_MS
from adserve.rollout.arms import exposed_share
from adserve.simulation.audience import BASE, HOLDOUT_BP, Audience
from adserve.simulation.ramps import Minute, exposed_ms, least_ms, on_schedule_ms, walked

LOAD = Guardrail(Metric.AD_LOAD, Direction.RISES, 2.5, min_viewers=50)
PLAN = Plan("status", tuple(Step(percent_bp, 3_600) for percent_bp in (1_000, 5_000, 10_000)), (LOAD,))
NOON_MS = 12 * HOUR_MS


def seen(
    percent_bp: int, minutes: int, effects: Mapping[Metric, float] = {}, viewers: int = 20_000
) -> Evidence:
    step = Audience(viewers, effects, 1).step(percent_bp, NOON_MS)
    return next(islice(step, minutes - 1, None))


def turns(plan: Plan, effects: Mapping[Metric, float] = {}, viewers: int = 5_000) -> list[Minute]:
    return [minute for minute in walked(plan, Audience(viewers, effects, 1), NOON_MS) if minute.moved]


def mean(moments: Moments) -> float:
    return moments.x / moments.y


@pytest.mark.parametrize("percent_bp", [500, 5_000, 7_500, 10_000])
def test_arms_are_as_large_as_they_are_drawn(percent_bp: int) -> None:
    evidence = seen(percent_bp, 600)
    assert evidence.exposed_share == exposed_share(percent_bp, HOLDOUT_BP)
    total = evidence.exposed + evidence.control
    assert abs(evidence.exposed - total * evidence.exposed_share) < 4 * np.sqrt(total) / 2


def test_moments_are_those_of_viewers_and_not_of_visits() -> None:
    """Sums grow as viewers come back: between visits of strangers the squares would be those of the visits."""
    early, late = seen(5_000, 60), seen(5_000, 1_440)
    for moments in (*late.compared[Metric.STATUSES_VIEWED], late.of_exposed[Metric.AD_LOAD]):
        assert moments.viewers < moments.y, "some were there more than once"
        assert moments.yy > 2 * moments.y, "a viewer's visits are added before they are squared"
        assert moments.xy**2 <= moments.xx * moments.yy
    assert late.exposed > 2 * early.exposed


def test_what_a_minute_adds_up_is_what_viewers_did() -> None:
    """Against the plain way: each viewer's own sums, from a twin that keeps every visit."""

    class Twin(Audience):
        kept: list[tuple[int, np.ndarray]]

        def _do(self, done: np.ndarray, viewer: np.ndarray, exposed: np.ndarray) -> None:
            super()._do(done, viewer, exposed)
            self.kept += zip(viewer.tolist(), done, strict=True)

    twin = Twin(3_000, {Metric.SESSION_SECONDS: 0.1}, 1)
    twin.kept = []
    evidence = next(islice(twin.step(10_000, NOON_MS), 14 * 60 - 1, None))
    sums: dict[int, np.ndarray] = {}
    for viewer, done in twin.kept:
        sums[viewer] = sums.get(viewer, 0) + done
    whole = np.array(list(sums.values()))
    both = [sum(pair) for pair in zip(*evidence.compared[Metric.SESSION_SECONDS], strict=True)]
    x, y = whole[:, 2], whole[:, 0]
    came = y > 0
    assert both == pytest.approx([came.sum(), x.sum(), y.sum(), (x * x).sum(), (x * y).sum(), (y * y).sum()])
    told = [sum(pair) for pair in zip(*evidence.compared[Metric.RETURNS_NEXT_DAY], strict=True)]
    assert told[:3] == [(whole[:, 4] > 0).sum(), whole[:, 5].sum(), whole[:, 4].sum()]


def test_effects_change_what_exposed_viewers_do_and_nothing_else() -> None:
    plain, changed = (seen(5_000, 600, effects) for effects in ({}, {Metric.POSTS_MADE: -0.5}))
    of_plain, of_changed = plain.compared[Metric.POSTS_MADE], changed.compared[Metric.POSTS_MADE]
    assert mean(of_changed[0]) == pytest.approx(mean(of_plain[0]) / 2)
    assert of_changed[1] == of_plain[1]
    assert changed.compared[Metric.SESSION_SECONDS] == plain.compared[Metric.SESSION_SECONDS]


def test_rates_are_those_that_are_told_of() -> None:
    plain, changed = (seen(5_000, 600, effects).of_exposed for effects in ({}, {Metric.HIDE_RATE: 4.0}))
    assert mean(plain[Metric.AD_LOAD]) == pytest.approx(BASE[Metric.AD_LOAD], rel=0.1)
    assert mean(plain[Metric.CLICK_RATE]) == pytest.approx(BASE[Metric.CLICK_RATE], rel=0.1)
    assert mean(changed[Metric.HIDE_RATE]) == pytest.approx(5 * BASE[Metric.HIDE_RATE], rel=0.1)


def test_the_same_seed_sees_the_same() -> None:
    assert seen(500, 90) == seen(500, 90)


def test_a_day_is_told_of_at_the_end_of_the_next() -> None:
    step = Audience(2_000, {}, 1).step(5_000, NOON_MS)
    *_, before, after = islice(step, 0, (2 * DAY_MS - NOON_MS) // MINUTE_MS)
    assert before.compared[Metric.RETURNS_NEXT_DAY][0].viewers == 0
    told = after.compared[Metric.RETURNS_NEXT_DAY][0]
    assert 0 < told.x < told.y == told.viewers


def test_a_plan_without_effect_comes_to_its_end() -> None:
    course = [(minute.at_ms - NOON_MS, minute.ramp.status, minute.ramp.step) for minute in turns(PLAN)]
    assert course == [
        (0, Status.RUNNING, 0),
        (HOUR_MS, Status.RUNNING, 1),
        (2 * HOUR_MS, Status.RUNNING, 2),
        (3 * HOUR_MS, Status.COMPLETED, 2),
    ]
    assert exposed_ms(turns(PLAN), NOON_MS + least_ms(PLAN)) == on_schedule_ms(PLAN) == 1.6 * HOUR_MS


def test_harm_is_rolled_back_and_viewers_are_spared_the_rest() -> None:
    course = turns(PLAN, {Metric.AD_LOAD: 4.0})
    last = course[-1]
    assert last.ramp.status is Status.ROLLED_BACK
    assert "worse than the 2.5 allowed" in last.ramp.reason
    assert exposed_ms(course, NOON_MS + least_ms(PLAN)) < on_schedule_ms(PLAN) / 4


def test_approval_comes_at_once_and_a_hold_ends_the_run() -> None:
    steps = (PLAN.steps[0], replace(PLAN.steps[1], approval=True))
    held = replace(
        PLAN,
        steps=steps,
        guardrails=(replace(LOAD, metric=Metric.ERRORS, bound=0.01, on_breach=OnBreach.HOLD),),
    )
    assert [minute.ramp.status for minute in turns(held)] == [
        Status.RUNNING,
        Status.AWAITING_APPROVAL,
        Status.RUNNING,
        Status.COMPLETED,
    ]
    assert [minute.ramp.status for minute in turns(held, {Metric.ERRORS: 100.0})] == [
        Status.RUNNING,
        Status.HELD,
    ]
