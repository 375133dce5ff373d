"""`make ramp-check`: whole plans of staged ramps, simulated by the hundred, into loadtest/results/ramp.json.

How often a plan without effect is rolled back, and one whose limits are just met; how often a harm of twice a bound is found, and
how much of it viewers are spared; and that a look that dies in any minute costs that minute at the most. The control judges the same
plans by tests for a fixed number of viewers, repeated every minute. Beside that, a million viewers go through the gates at each step
(`loadtest/viewers.py`); `kill_ms_max` comes from `tests/chaos/test_kill_switch.py`.
"""

import argparse
import statistics
import sys
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from unittest.mock import patch

import orjson
from msgspec.structs import replace
from tqdm import tqdm

from adserve.commands.arguments import positive
from adserve.domain.ramps import COMPARED, OPERATIONAL, Direction, Guardrail, Metric, Plan, Status, Step
from adserve.domain.time import HOUR_MS, MINUTE_MS
from adserve.rollout.guardrails import limit_of
from adserve.rollout.ramps import percent_bp_of
from adserve.simulation.audience import BASE, Audience, Effects
from adserve.simulation.ramps import Minute, exposed_ms, least_ms, on_schedule_ms, walked
from loadtest import viewers

RESULT = Path(__file__).parent / "results" / "ramp.json"
SEEDS = 500
VIEWERS = 100_000
HARM_OF_BOUND = 2.0
FIXED_HORIZON_Z = 1.645
"""Of a one-sided test at 5 %."""
STEP_S = 4 * 3_600
PLAN = Plan(
    "status",
    tuple(Step(percent_bp, STEP_S) for percent_bp in (50, 200, 1_000, 2_500, 5_000, 10_000)),
    (
        Guardrail(Metric.STATUSES_VIEWED, Direction.FALLS, 0.1),
        Guardrail(Metric.SESSION_SECONDS, Direction.FALLS, 0.1),
        Guardrail(Metric.POSTS_MADE, Direction.FALLS, 0.15),
        Guardrail(Metric.HIDE_RATE, Direction.RISES, 0.008),
        Guardrail(Metric.REPORT_RATE, Direction.RISES, 0.0015),
        Guardrail(Metric.CLICK_RATE, Direction.FALLS, 0.01),
        Guardrail(Metric.AD_LOAD, Direction.RISES, 2.5),
        Guardrail(Metric.DECISION_P99_MS, Direction.RISES, 20.0),
    ),
)
SHORT = replace(
    PLAN,
    steps=tuple(Step(percent_bp, 20 * 60) for percent_bp in (2_500, 5_000, 10_000)),
    guardrails=(
        Guardrail(Metric.AD_LOAD, Direction.RISES, 2.5, min_viewers=30),
        Guardrail(Metric.DECISION_P99_MS, Direction.RISES, 20.0),
    ),
)
SHORT_VIEWERS = 20_000
DEATH_SEEDS = 6
BANDED = [guardrail for guardrail in PLAN.guardrails if guardrail.metric not in OPERATIONAL]

T = TypeVar("T")


class Run(NamedTuple):
    """`turns` are the minutes in which the plan moved."""

    turns: list[Minute]

    @property
    def status(self) -> Status:
        return self.turns[-1].ramp.status

    @property
    def course(self) -> list[tuple[Status, int, int]]:
        """Status, step and percent after each move."""
        return [(turn.ramp.status, turn.ramp.step, percent_bp_of(turn.ramp)) for turn in self.turns]

    @property
    def exposure(self) -> float:
        """Viewers' time with ads as a part of what it is where each step is taken on schedule and nobody looks."""
        plan = self.turns[-1].ramp.plan
        return exposed_ms(self.turns, self.turns[0].at_ms + least_ms(plan)) / on_schedule_ms(plan)

    @property
    def hours(self) -> float:
        return (self.turns[-1].at_ms - self.turns[0].at_ms) / HOUR_MS


def effect_on(guardrail: Guardrail, of_bound: float) -> Effects:
    """The effect that takes the metric to so many times its bound, or, of a rate that must not fall, that part of it."""
    limit = limit_of(guardrail)
    if guardrail.metric in COMPARED:
        return {guardrail.metric: limit * of_bound}
    rate = limit * of_bound if guardrail.direction is Direction.RISES else limit / of_bound
    return {guardrail.metric: rate / BASE[guardrail.metric] - 1}


def run(
    effects: Effects, seed: int, plan: Plan = PLAN, viewers: int = VIEWERS, dies: Collection[int] = ()
) -> Run:
    """The start lies at another hour for each seed."""
    minutes = walked(plan, Audience(viewers, effects, seed), seed % 24 * HOUR_MS, dies)
    return Run([minute for minute in minutes if minute.moved])


def without_effect(seed: int, plan: Plan = PLAN) -> Run:
    return run({}, seed, plan)


def at_bounds(seed: int, plan: Plan = PLAN) -> Run:
    """Every limit that has a band is just met."""
    return run({metric: by for each in BANDED for metric, by in effect_on(each, 1.0).items()}, seed, plan)


def harmed(seed: int, plan: Plan = PLAN) -> Run:
    """Each guardrail with a band has its turn."""
    return run(effect_on(BANDED[seed % len(BANDED)], HARM_OF_BOUND), seed, plan)


def by_fixed_horizon(seed: int, plan: Plan = PLAN) -> Run:
    """The control: judged each minute as if that were the only look."""
    with patch("adserve.rollout.sequences.boundary", lambda information, scale, error: FIXED_HORIZON_Z):
        return run({}, seed, plan)


def wrong_after_deaths(seed: int) -> tuple[int, int]:
    """Lets a look die in each minute of a short plan that comes to its end, and of one that is rolled back, in turn. Answers how often what
    followed is not the undisturbed course with its next move a minute late at the most; and of how many."""
    wrong = total = 0
    for effects in ({}, {Metric.AD_LOAD: 9.0}):
        whole = run(effects, seed, SHORT, SHORT_VIEWERS)
        for minute in range(round(whole.hours * 60) + 1):
            again = run(effects, seed, SHORT, SHORT_VIEWERS, {minute})
            died_ms = whole.turns[0].at_ms + minute * MINUTE_MS
            due = next(place for place, turn in enumerate(whole.turns) if turn.at_ms >= died_ms)
            late_ms = [
                turn.at_ms - in_time.at_ms
                for turn, in_time in zip(again.turns[: due + 1], whole.turns, strict=False)
            ]
            wrong += again.course != whole.course or any(late_ms[:-1]) or late_ms[-1] not in (0, MINUTE_MS)
            total += 1
    return wrong, total


def simulated(seeds: int, jobs: int) -> dict[str, Any]:
    with ProcessPoolExecutor(jobs) as pool:

        def every(what: Callable[[int], T], count: int = seeds) -> list[T]:
            found = pool.map(what, range(count))
            return list(
                tqdm(found, desc=what.__name__.replace("_", " "), total=count, unit="plan", disable=None)
            )

        unharmed, just_met, harm = every(without_effect), every(at_bounds), every(harmed)
        naive, deaths = every(by_fixed_horizon), every(wrong_after_deaths, min(seeds, DEATH_SEEDS))
    return {
        "seeds": seeds,
        "viewers_simulated": VIEWERS,
        "looks_p50": round(statistics.median(one.hours for one in unharmed) * 60),
        "false_rollback_share": _share(unharmed, Status.ROLLED_BACK),
        "false_hold_share": _share(unharmed, Status.HELD),
        "false_rollback_share_at_bounds": _share(just_met, Status.ROLLED_BACK),
        "naive_false_share": _share(naive, Status.ROLLED_BACK),
        "detected_share": _share(harm, Status.ROLLED_BACK),
        "detected_share_by_metric": {
            guardrail.metric.value: _share(harm[number :: len(BANDED)], Status.ROLLED_BACK)
            for number, guardrail in enumerate(BANDED[:seeds])
        },
        "harm_exposure_of_schedule": round(statistics.mean(one.exposure for one in harm), 4),
        "hours_to_rollback_p50": round(
            statistics.median(one.hours for one in harm if one.status is Status.ROLLED_BACK), 2
        ),
        "deaths": sum(total for _, total in deaths),
        "wrong_after_deaths": sum(wrong for wrong, _ in deaths),
    }


def _share(runs: Sequence[Run], status: Status) -> float:
    return round(sum(one.status is status for one in runs) / len(runs), 4)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m loadtest.ramps", description=__doc__)
    parser.add_argument(
        "--seeds", type=positive, default=SEEDS, help=f"plans of each kind (default: {SEEDS})"
    )
    parser.add_argument("--jobs", type=positive, default=1, help="processes at once (default: 1)")
    parser.add_argument(
        "--viewers",
        type=positive,
        default=viewers.VIEWERS,
        help=f"sent through the gates (default: {viewers.VIEWERS:,})",
    )
    asked = parser.parse_args()
    gates = viewers.check(asked.viewers)
    figures = simulated(asked.seeds, asked.jobs) | gates._asdict() | {"kill_ms_max": None}
    for name, figure in figures.items():
        print(f"{name:34} {figure}")  # noqa: T201 - the result
    form = orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_bytes(orjson.dumps(figures, option=form))
    return 0


if __name__ == "__main__":
    sys.exit(main())
