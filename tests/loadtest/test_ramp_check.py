"""The check of whole plans in its small form: tens of plans of a few steps, and the control that looks as often by another rule."""

from msgspec.structs import replace

from adserve.domain.ramps import Status, Step
from loadtest.ramps import (
    BANDED,
    PLAN,
    at_bounds,
    by_fixed_horizon,
    effect_on,
    harmed,
    without_effect,
    wrong_after_deaths,
)

FEW = replace(PLAN, steps=tuple(Step(percent_bp, 5_400) for percent_bp in (50, 200, 800)))
MANY = replace(PLAN, steps=tuple(Step(percent_bp, 5_400) for percent_bp in (1_000, 4_000)))
NOON = 12
SEEDS = range(NOON, 24 * 24, 24)
"""All start at noon: at night few are there to be seen."""


def test_plans_that_do_no_harm_or_just_as_much_as_they_may_come_to_their_end() -> None:
    ends = [without_effect(seed, FEW).status for seed in SEEDS]
    ends += [at_bounds(seed, FEW).status for seed in SEEDS]
    assert ends == [Status.COMPLETED] * len(ends)


def test_control_a_fixed_horizon_takes_plans_back_that_do_no_harm() -> None:
    back = [by_fixed_horizon(seed, FEW).status is Status.ROLLED_BACK for seed in SEEDS]
    assert sum(back) / len(back) > 0.2


def test_twice_a_bound_is_found_and_spared() -> None:
    runs = [harmed(seed, MANY) for seed in SEEDS[:14]]
    assert sum(run.status is Status.ROLLED_BACK for run in runs) >= len(runs) - 3
    assert sum(run.exposure for run in runs) / len(runs) < 0.6


def test_harm_is_twice_the_bound_of_each_guardrail() -> None:
    by = [round(next(iter(effect_on(guardrail, 2.0).values())), 2) for guardrail in BANDED]
    assert by == [-0.2, -0.2, -0.3, 3.0, 5.0, -0.75, 3.55]


def test_a_look_that_dies_in_any_minute_costs_that_minute_at_the_most() -> None:
    wrong, deaths = wrong_after_deaths(NOON)
    assert wrong == 0
    assert deaths > 60
