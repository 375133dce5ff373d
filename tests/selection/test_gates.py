import pytest
from market import NOW_MS, make_ad, make_ask, make_view

from adserve.catalogue.snapshot import SNAPSHOT_MAX_AGE_MS
from adserve.domain.rollouts import SurfaceRollout
from adserve.domain.slots import NoFill
from adserve.selection.gates import first_closed

ADS = [make_ad(1)]
STALE_MS = NOW_MS - SNAPSHOT_MAX_AGE_MS - 1
ALL_HELD_OUT = SurfaceRollout(percent_bp=10_000, holdout_bp=10_000)
NOBODY = SurfaceRollout(percent_bp=0, holdout_bp=10_000)


def test_open() -> None:
    assert first_closed(make_ask(), make_view(ADS), NOW_MS) is None


@pytest.mark.parametrize(
    ("paused", "fresh_at_ms", "rollout", "reason"),
    [
        (True, STALE_MS, NOBODY, NoFill.ROLLOUT_PAUSED),
        (False, STALE_MS, NOBODY, NoFill.DEGRADED),
        (False, NOW_MS, NOBODY, NoFill.NOT_IN_ROLLOUT),
        (False, NOW_MS, ALL_HELD_OUT, NoFill.HOLDOUT),
        (False, NOW_MS, SurfaceRollout(percent_bp=10_000), NoFill.OPTED_OUT),
    ],
)
def test_the_first_closed_gate_is_the_reason(
    paused: bool, fresh_at_ms: int, rollout: SurfaceRollout, reason: NoFill
) -> None:
    view = make_view(ADS, paused=paused, fresh_at_ms=fresh_at_ms, rollout=rollout)
    assert first_closed(make_ask(ads_allowed=False), view, NOW_MS) is reason


def test_a_snapshot_serves_for_exactly_as_long_as_it_may() -> None:
    view = make_view(ADS, fresh_at_ms=NOW_MS - SNAPSHOT_MAX_AGE_MS)
    assert first_closed(make_ask(), view, NOW_MS) is None
    assert first_closed(make_ask(), view, NOW_MS + 1) is NoFill.DEGRADED


def test_a_surface_without_a_rollout_shows_nothing() -> None:
    view = make_view(ADS)
    unset = view._replace(snapshot=type(view.snapshot)(1, view.snapshot.ads, {}))
    assert first_closed(make_ask(), unset, NOW_MS) is NoFill.NOT_IN_ROLLOUT


def test_a_country_may_be_ahead_of_its_surface() -> None:
    view = make_view(ADS, rollout=SurfaceRollout(percent_bp=0, countries={"ID": 10_000}))
    assert first_closed(make_ask(), view, NOW_MS) is None
