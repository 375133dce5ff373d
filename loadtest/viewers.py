"""What a plan does to each of a million viewers: nobody loses ads on its way up, and whoever is held out never sees one.

Each viewer is sent through the gates of a decision at each step of a plan, in each of its countries, and again after a roll-back.
"""

import asyncio
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

from tqdm import tqdm

from adserve.catalogue.snapshot import Snapshot
from adserve.domain.ramps import Act, Plan, Ramp, Status, Step
from adserve.domain.rollouts import SurfaceRollout
from adserve.domain.slots import Ask, Context, NoFill, Viewer
from adserve.domain.surfaces import Surface
from adserve.prediction.prior import Prior
from adserve.rollout.assignment import BUCKETS, in_holdout
from adserve.rollout.ramps import Move, acted, moved, percent_bp_of, planned, walk
from adserve.selection.gates import first_closed
from adserve.selection.state import LiveView, View

VIEWERS = 1_000_000
SURFACE = "status"
GROUP = Surface().group
HOLDOUT_BP = 500
COUNTRIES = ("ID", "SG")
PERCENTS_BP = (1, 10, 100, 500, 2_500, 5_000, 10_000)
PLAN = Plan(SURFACE, tuple(Step(percent_bp, 0) for percent_bp in PERCENTS_BP), (), COUNTRIES)
NOW_MS = 1_800_000_000_000

Gates = Callable[[Ask, View, int], NoFill | None]


class Checked(NamedTuple):
    """Of all steps and countries: viewers who lost ads on the way up, whom a roll-back left otherwise than the step that it returns
    to, held out viewers with ads; and how far, in points, the share with ads was from what was asked for at the most."""

    viewers: int
    monotone_violations: int
    rollback_violations: int
    holdout_leaks: int
    share_error_points: float


class _Switch(NamedTuple):
    switch_version: int = 1
    paused: bool = False


def check(viewers: int, gates: Gates = first_closed, holdout_bp: int = HOLDOUT_BP) -> Checked:
    """Of viewers of the plan's countries, and of none, who fall under the surface's own percent."""
    steps = asyncio.run(_views(_percents(PLAN), holdout_bp))
    returned = asyncio.run(_views([_rolled_back_bp(PLAN)], holdout_bp))[0]
    lost = otherwise = leaks = 0
    off_points = 0.0
    held_out = SurfaceRollout(BUCKETS, holdout_bp)
    for country in (*COUNTRIES, None):
        seen = [0] * len(steps)
        for number in tqdm(range(viewers), desc=f"viewers in {country or 'no country'}", disable=None):
            ask = _ask(f"viewer-{number}", country)
            shown = [gates(ask, view, NOW_MS) is None for view in steps]
            lost += sum(before > after for before, after in pairwise(shown))
            otherwise += (gates(ask, returned, NOW_MS) is None) != shown[-2]
            if any(shown):
                leaks += in_holdout(held_out, GROUP, ask.viewer.raw)
                seen = [total + one for total, one in zip(seen, shown, strict=True)]
        off_points = max(off_points, *_off_points(seen, viewers, holdout_bp))
    return Checked(viewers, lost, otherwise, leaks, off_points)


def _off_points(seen: Sequence[int], viewers: int, holdout_bp: int) -> list[float]:
    asked = [percent_bp / 100 * (1 - holdout_bp / BUCKETS) for percent_bp in PERCENTS_BP]
    return [abs(100 * count / viewers - points) for count, points in zip(seen, asked, strict=True)]


def _percents(plan: Plan) -> list[int]:
    """Those that a plan sets which nothing stands in the way of."""
    return [percent_bp_of(ramp) for ramp in _walked(plan)]


def _walked(plan: Plan) -> list[Ramp]:
    ramp, steps = planned(1, plan, 0), []
    while (move := walk(ramp, (), None, 0, NOW_MS, False)) is not None:
        ramp = moved(ramp, move)
        if ramp.status is Status.RUNNING:
            steps.append(ramp)
    return steps


def _rolled_back_bp(plan: Plan) -> int:
    """Where the last step returns to."""
    last = _walked(plan)[-1]
    move = acted(last, Act.ROLL_BACK, "harm", NOW_MS, False)
    if not isinstance(move, Move):
        raise TypeError(move)
    return percent_bp_of(moved(last, move))


async def _views(percents_bp: Sequence[int], holdout_bp: int) -> list[View]:
    """What decisions read while the plan's countries, and the surface itself, stand at each of these."""
    live = LiveView({SURFACE: Surface()}, Prior({}))
    views = []
    for number, percent_bp in enumerate(percents_bp, 1):
        rollout = SurfaceRollout(percent_bp, holdout_bp, dict.fromkeys(COUNTRIES, percent_bp))
        await live.publish(Snapshot(number, (), {SURFACE: rollout}), _Switch(), NOW_MS)
        views.append(live.current())
    return views


def _ask(viewer: str, country: str | None) -> Ask:
    return Ask(Viewer(viewer, b"", b""), SURFACE, 30, None, 1, Context(country=country))
