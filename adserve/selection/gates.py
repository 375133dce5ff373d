"""The steps before any ad is looked at. Each answers why there will be no ads, or nothing."""

from collections.abc import Callable

from adserve.domain.slots import Ask, NoFill
from adserve.rollout.assignment import admits, bucket_of, holdout_bucket_of
from adserve.selection.state import View

Gate = Callable[[Ask, View, int], NoFill | None]


def not_paused(_ask: Ask, view: View, _now_ms: int) -> NoFill | None:
    return NoFill.ROLLOUT_PAUSED if view.paused else None


def snapshot_is_fresh(_ask: Ask, view: View, now_ms: int) -> NoFill | None:
    return None if view.is_fresh(now_ms) else NoFill.DEGRADED


def wants_ads(ask: Ask, _view: View, _now_ms: int) -> NoFill | None:
    return None if ask.ads_allowed else NoFill.OPTED_OUT


def viewer_in_rollout(ask: Ask, view: View, _now_ms: int) -> NoFill | None:
    rollout = view.snapshot.rollout_of(ask.surface)
    admitted = admits(rollout, rollout_bucket(ask, view), ask.context.country)
    return None if admitted else NoFill.NOT_IN_ROLLOUT


def viewer_not_held_out(ask: Ask, view: View, _now_ms: int) -> NoFill | None:
    rollout = view.snapshot.rollout_of(ask.surface)
    held_out = rollout.holdout_bp > 0 and holdout_bucket(ask, view) < rollout.holdout_bp
    return NoFill.HOLDOUT if held_out else None


def rollout_bucket(ask: Ask, view: View) -> int:
    if ask.viewer.buckets is not None:
        return ask.viewer.buckets[0]
    return bucket_of(view.surfaces[ask.surface].settings.group, ask.viewer.raw)


def holdout_bucket(ask: Ask, view: View) -> int:
    if ask.viewer.buckets is not None:
        return ask.viewer.buckets[1]
    return holdout_bucket_of(view.surfaces[ask.surface].settings.group, ask.viewer.raw)


GATES: tuple[Gate, ...] = (not_paused, snapshot_is_fresh, viewer_in_rollout, viewer_not_held_out, wants_ads)


def first_closed(ask: Ask, view: View, now_ms: int) -> NoFill | None:
    for gate in GATES:
        reason = gate(ask, view, now_ms)
        if reason is not None:
            return reason
    return None
