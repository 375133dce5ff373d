"""The check of every viewer in its small form, and that it finds what it is there for."""

from adserve.catalogue.snapshot import Snapshot
from adserve.domain.rollouts import SurfaceRollout
from adserve.domain.slots import Ask, NoFill
from adserve.rollout.assignment import bucket_of
from adserve.selection.gates import first_closed, viewer_in_rollout
from adserve.selection.state import View
from loadtest.viewers import check

VIEWERS = 10_000
SHARE_POINTS = 2.5
"""Five standard deviations at a half: a million viewers are held to 0.3."""
FEW = 2_000


def test_nobody_loses_ads_on_the_way_up_or_sees_them_held_out() -> None:
    checked = check(VIEWERS)
    assert checked[:4] == (VIEWERS, 0, 0, 0)
    assert checked.share_error_points < SHARE_POINTS


def test_control_a_draw_of_its_own_for_each_step_is_found() -> None:
    def redrawn(ask: Ask, view: View, _now_ms: int) -> NoFill | None:
        percent_bp = view.snapshot.rollouts[ask.surface].percent_bp
        drawn = bucket_of(f"status-{percent_bp}", ask.viewer.raw)
        return None if drawn < percent_bp else NoFill.NOT_IN_ROLLOUT

    checked = check(FEW, redrawn)
    assert checked.monotone_violations > 0


def test_control_a_roll_back_to_another_percent_is_found() -> None:
    def short(ask: Ask, view: View, now_ms: int) -> NoFill | None:
        # what is returned to is published alone, and not at the first step's percent
        alone = view.snapshot.version == 1 and view.snapshot.rollouts[ask.surface].percent_bp > 1
        halved = SurfaceRollout(2_500, 500) if alone else view.snapshot.rollouts[ask.surface]
        return first_closed(ask, view._replace(snapshot=Snapshot(1, (), {ask.surface: halved})), now_ms)

    assert check(FEW, short).rollback_violations > 0


def test_control_gates_that_forget_the_holdout_are_found() -> None:
    checked = check(FEW, viewer_in_rollout)
    assert checked.holdout_leaks > 0
    assert checked.share_error_points > SHARE_POINTS
