"""Draws whom a step of a ramp compares: those who see ads, and a control who do not.

The control is drawn by a salt of each ramp's own from those who do not see ads yet, as large as the exposed where enough remain; else
everybody unexposed outside the holdout. Where nobody remains the holdout is the control. Nobody leaves an arm but for the exposed:
whoever is in the control at some percent is in it at every higher one until exposed (or, at the last, until all are). A viewer of the
holdout is never exposed.
"""

from typing import NamedTuple

import mmh3

from adserve.domain.ramps import Arm
from adserve.domain.rollouts import Stage, Stages, SurfaceRollout
from adserve.rollout.assignment import BUCKETS, bucket_of, holdout_bucket_of

CONTROL_SALT = "control"
DRAWS = 1 << 32
"""Finer than buckets: the control of a ramp at 0.01 % is drawn from the other 99.99 %."""


class Standing(NamedTuple):
    """A viewer's place in the step of a ramp."""

    stage: Stage
    arm: Arm


def arm_of(viewer: str, group: str, ramp: int, percent_bp: int, holdout_bp: int) -> Arm:
    """`viewer` is the raw id."""
    if holdout_bucket_of(group, viewer) < holdout_bp:
        return Arm.CONTROL if percent_bp == BUCKETS else Arm.NONE
    if bucket_of(group, viewer) < percent_bp:
        return Arm.EXPOSED
    drawn = mmh3.hash(f"{group}:{CONTROL_SALT}:{ramp}:{viewer}".encode(), signed=False)
    return Arm.CONTROL if drawn * (BUCKETS - percent_bp) < percent_bp * DRAWS else Arm.NONE


def exposed_share(percent_bp: int, holdout_bp: int) -> float:
    """What share of both arms' viewers ought to be exposed. Without anybody in either it is 0."""
    held, percent = holdout_bp / BUCKETS, percent_bp / BUCKETS
    exposed = percent * (1 - held)
    control = held if percent_bp == BUCKETS else min(percent, 1 - percent) * (1 - held)
    return exposed / (exposed + control) if exposed + control else 0.0


def stage_at(stages: Stages, rollout: SurfaceRollout, surface: str, country: str | None) -> Stage | None:
    """Of the ramp that moves the percent under which viewers of this country fall."""
    return stages.get((surface, country if country in rollout.countries else None))


def standing_of(
    viewer: str, group: str, stages: Stages, rollout: SurfaceRollout, surface: str, country: str | None
) -> Standing | None:
    """Of the viewer with this raw id; None where no ramp is under way, and for a viewer who is in neither arm of it."""
    stage = stage_at(stages, rollout, surface, country)
    if stage is None:
        return None
    arm = arm_of(viewer, group, stage.ramp, rollout.percent_bp_for(country), rollout.holdout_bp)
    return None if arm is Arm.NONE else Standing(stage, arm)
