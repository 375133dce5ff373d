from collections import Counter
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adserve.domain.ramps import Arm
from adserve.domain.rollouts import Stage, SurfaceRollout
from adserve.rollout.arms import arm_of, exposed_share, stage_at, standing_of
from adserve.rollout.assignment import BUCKETS, admits, bucket_of, in_holdout

CROWD = [f"viewer-{number}" for number in range(20_000)]
HOLDOUT_BP = 500
STEPS = (1, 10, 100, 500, 2_500, 5_000, 7_500, 9_999, BUCKETS)
NEXT = {
    Arm.NONE: {Arm.NONE, Arm.CONTROL, Arm.EXPOSED},
    Arm.CONTROL: {Arm.CONTROL, Arm.EXPOSED},
    Arm.EXPOSED: {Arm.EXPOSED},
}

Draw = Callable[[str, str, int, int, int], Arm]
basis_points = st.integers(0, BUCKETS)
words = st.text(st.characters(exclude_categories=("Cs",)), max_size=30)


@given(viewer=words, ramp=st.integers(1, 1 << 40), holdout_bp=basis_points, steps=st.sets(basis_points))
@settings(derandomize=True, max_examples=300)
def test_nobody_goes_back(viewer: str, ramp: int, holdout_bp: int, steps: set[int]) -> None:
    arms = [arm_of(viewer, "status", ramp, percent, holdout_bp) for percent in sorted(steps)]
    assert all(after in NEXT[before] for before, after in pairwise(arms))


def steps_back(draw: Draw) -> int:
    back = 0
    for viewer in CROWD[:4_000]:
        arms = [draw(viewer, "status", 7, percent, HOLDOUT_BP) for percent in STEPS]
        back += sum(after not in NEXT[before] for before, after in pairwise(arms))
    return back


def drawn_anew(viewer: str, group: str, ramp: int, percent_bp: int, holdout_bp: int) -> Arm:
    """A broken twin: each percent draws a control of its own."""
    return arm_of(viewer, group, ramp * BUCKETS + percent_bp, percent_bp, holdout_bp)


def test_control_a_control_that_is_drawn_anew_at_each_step_is_noticed() -> None:
    assert steps_back(arm_of) == 0
    assert steps_back(drawn_anew) > 0


@given(viewer=words, group=words, percent_bp=basis_points, holdout_bp=basis_points)
@settings(derandomize=True, max_examples=300)
def test_the_exposed_are_those_who_see_ads(viewer: str, group: str, percent_bp: int, holdout_bp: int) -> None:
    rollout = SurfaceRollout(percent_bp, holdout_bp)
    sees = admits(rollout, bucket_of(group, viewer), None) and not in_holdout(rollout, group, viewer)
    assert (arm_of(viewer, group, 7, percent_bp, holdout_bp) is Arm.EXPOSED) is sees


@pytest.mark.parametrize("percent_bp", STEPS)
def test_the_holdout_is_never_exposed_and_the_control_of_the_last_step_alone(percent_bp: int) -> None:
    rollout = SurfaceRollout(percent_bp, HOLDOUT_BP)
    held = [viewer for viewer in CROWD if in_holdout(rollout, "status", viewer)]
    arms = {arm_of(viewer, "status", 7, percent_bp, HOLDOUT_BP) for viewer in held}
    assert arms == {Arm.CONTROL if percent_bp == BUCKETS else Arm.NONE}


def sizes_off(draw: Draw, percent_bp: int) -> float:
    """How many standard deviations the control's size is from what it ought to be, given who is exposed."""
    arms = Counter(draw(viewer, "status", 7, percent_bp, HOLDOUT_BP) for viewer in CROWD)
    both, share = arms[Arm.EXPOSED] + arms[Arm.CONTROL], exposed_share(percent_bp, HOLDOUT_BP)
    deviation = (both * share * (1 - share)) ** 0.5
    return abs(arms[Arm.EXPOSED] - both * share) / max(deviation, 1.0)


def everybody_else(viewer: str, group: str, ramp: int, percent_bp: int, holdout_bp: int) -> Arm:
    """A broken twin: a control of all who are not exposed."""
    arm = arm_of(viewer, group, ramp, percent_bp, holdout_bp)
    held = in_holdout(SurfaceRollout(percent_bp, holdout_bp), group, viewer)
    return Arm.CONTROL if arm is Arm.NONE and not held else arm


@pytest.mark.parametrize("percent_bp", STEPS)
def test_the_control_is_as_large_as_the_exposed_where_enough_remain(percent_bp: int) -> None:
    assert sizes_off(arm_of, percent_bp) < 4.5


def test_control_a_wrong_size_is_noticed() -> None:
    assert sizes_off(everybody_else, 2_500) > 4.5


def test_the_share_that_ought_to_be_exposed() -> None:
    shares = [exposed_share(percent, 1_000) for percent in (0, 1, 5_000, 8_000, BUCKETS)]
    assert shares == pytest.approx([0, 0.5, 0.5, 0.8, 0.9])
    assert exposed_share(BUCKETS, 0) == 1


def test_the_control_has_a_salt_of_the_ramps_own() -> None:
    def control(ramp: int) -> set[str]:
        return {viewer for viewer in CROWD if arm_of(viewer, "status", ramp, 1_000, 0) is Arm.CONTROL}

    first, second = control(7), control(8)
    unexposed = len(CROWD) * 0.9
    assert abs(len(first & second) - unexposed / 81) < 6 * (unexposed / 81) ** 0.5


@pytest.mark.parametrize(
    ("country", "ramp"),
    [("ID", 1), ("DE", 2), (None, 2), ("BR", None)],
    ids=["its own", "under the surface's", "without a country", "its own percent, and no ramp"],
)
def test_a_viewer_falls_under_the_ramp_that_moves_their_percent(
    country: str | None, ramp: int | None
) -> None:
    rollout = SurfaceRollout(5_000, countries={"ID": 5_000, "BR": 5_000})
    stages = {("status", "ID"): Stage(1, 0, 5), ("status", None): Stage(2, 3, 9)}
    stage = stage_at(stages, rollout, "status", country)
    assert (stage and stage.ramp) == ramp
    standing = standing_of("u-1", "status", stages, rollout, "status", country)
    assert (standing and standing.stage) == stage
    assert stage_at(stages, rollout, "stories", country) is None


def test_a_viewer_of_neither_arm_stands_nowhere() -> None:
    stages, rollout = {("status", None): Stage(7, 0, 5)}, SurfaceRollout(1_000, HOLDOUT_BP)
    for viewer in CROWD[:500]:
        arm = arm_of(viewer, "status", 7, 1_000, HOLDOUT_BP)
        standing = standing_of(viewer, "status", stages, rollout, "status", None)
        assert (standing.arm if standing else Arm.NONE) is arm
