"""Bands are tried on what they are for: looks at every moment, viewers who come back, and outcomes that few viewers make most of."""

import numpy as np
import pytest

from adserve.domain.ramps import Moments
from adserve.rollout.sequences import Band, band_of_change, band_of_rate, boundary

ERROR = 0.05
FIXED_HORIZON_Z = 1.645
PATHS = 2_000


def moments(x: np.ndarray, y: np.ndarray | None = None) -> Moments:
    y = np.ones_like(x) if y is None else y
    return Moments(len(x), x.sum(), y.sum(), (x * x).sum(), (x * y).sum(), (y * y).sum())


def crossed(z: np.ndarray, information: np.ndarray, scale: float) -> float:
    """The share of rows of z that are ever beyond the boundary."""
    bound = np.vectorize(boundary)(information, scale, ERROR)
    return float((z > bound).any(axis=1).mean())


def test_a_brownian_motion_seldom_crosses_the_boundary_and_a_fixed_horizon_often() -> None:
    chance = np.random.default_rng(1)
    time = np.geomspace(1, 10_000, 400)
    motion = np.cumsum(chance.normal(0, np.sqrt(np.diff(time, prepend=0)), (PATHS, time.size)), axis=1)
    z = motion / np.sqrt(time)
    assert crossed(z, time, 0.05) <= ERROR
    assert (z > FIXED_HORIZON_Z).any(axis=1).mean() > 4 * ERROR


@pytest.mark.parametrize("lasting", [0.0, 0.5, 3.0], ids=["fresh chance", "some lasting", "mostly lasting"])
def test_viewers_who_come_back_do_not_break_the_band(lasting: float) -> None:
    """The same viewers from the first look on, each with an outcome at every look: no new ones come, and the clock must run all the same."""
    chance = np.random.default_rng(2)
    runs, viewers, looks = 400, 60, 150
    own = chance.normal(0, lasting, (runs, viewers, 1))
    sums = np.cumsum(own + chance.normal(0, 1, (runs, viewers, looks)), axis=2)
    estimate = sums.mean(axis=1) / np.arange(1, looks + 1)
    se = sums.std(axis=1, ddof=1) / np.sqrt(viewers) / np.arange(1, looks + 1)
    assert crossed(estimate / se, 1 / se**2, 1.0) <= ERROR
    if lasting == 0:
        assert (estimate / se > FIXED_HORIZON_Z).any(axis=1).mean() > 4 * ERROR


def test_one_visit_a_day_at_any_time_does_not_break_the_band() -> None:
    """Of two visits of one viewer the second cannot be soon: they repel each other, which the argument for the clock does not cover."""
    chance = np.random.default_rng(3)
    runs, viewers, days, looks = 300, 200, 3, 90
    visits = chance.random((runs, viewers, days)) + np.arange(days)
    size = chance.lognormal(0, 1, (runs, viewers, days)) - np.exp(0.5)
    times = np.linspace(0.1, days, looks)
    z, information = np.empty((runs, looks)), np.empty((runs, looks))
    for look, time in enumerate(times):
        sums = (size * (visits <= time)).sum(axis=2)
        signs = np.where(np.arange(viewers) % 2, 1.0, -1.0)
        se = np.sqrt((sums**2).sum(axis=1)) / viewers
        z[:, look], information[:, look] = (sums * signs).mean(axis=1) / se, 1 / se**2
    assert crossed(z, information, 0.5) <= ERROR


def test_the_variance_of_a_ratio_is_that_of_the_delta_method() -> None:
    chance = np.random.default_rng(4)
    estimates, widths = [], []
    for _ in range(500):
        sessions = chance.poisson(3, 400) + 1.0
        ads = chance.poisson(sessions * chance.lognormal(0, 0.5, 400)).astype(float)
        band = band_of_rate(moments(ads, sessions), 0.5, ERROR)
        assert band is not None
        estimates.append(band.estimate)
        widths.append(band.estimate - band.low)
    se = float(np.std(estimates))
    assert np.mean(widths) == pytest.approx(boundary(1 / se**2, 0.5, ERROR) * se, rel=0.08)


def test_a_change_is_found_between_its_ends() -> None:
    chance = np.random.default_rng(5)
    exposed, control = chance.lognormal(0, 1, 40_000) * 0.8, chance.lognormal(0, 1, 40_000)
    band = band_of_change(moments(exposed), moments(control), 0.1, ERROR)
    assert band is not None
    assert band.high is not None
    assert band.low < -0.2 < band.high < -0.1


def test_where_all_of_it_is_gone_the_change_is_sure() -> None:
    some = np.repeat([0.0, 1.0], [900, 100])
    band = band_of_change(moments(np.zeros(1_000)), moments(some), 0.1, ERROR)
    assert band is not None
    assert band.high is not None
    assert (band.estimate, band.low) == (-1.0, -1.0)
    assert band.high < -0.5


def test_a_control_next_to_nothing_bounds_no_rise() -> None:
    one = np.repeat([0.0, 1.0], [999, 1])
    band = band_of_change(moments(np.repeat([0.0, 1.0], [990, 10])), moments(one), 0.1, ERROR)
    assert band is not None
    assert band.high is None
    assert band.low == -1.0


def test_a_control_next_to_nothing_can_exclude_a_fall() -> None:
    few = np.repeat([0.0, 1.0], [989, 11])
    band = band_of_change(moments(np.repeat([0.0, 1.0], [800, 200])), moments(few), 1.0, ERROR)
    assert band is not None
    assert band.high is None
    assert band.low > 0


def test_nothing_to_compare_is_no_band() -> None:
    nobody, idle = Moments(0, 0, 0, 0, 0, 0), moments(np.zeros(100))
    assert band_of_rate(nobody, 0.01, ERROR) is None
    assert band_of_change(nobody, idle, 0.1, ERROR) is None
    assert band_of_change(idle, idle, 0.1, ERROR) is None
    assert band_of_change(moments(np.ones(100)), moments(np.ones(100)), 0.1, ERROR) is None


def test_no_click_of_many_is_less_certain_than_it_looks() -> None:
    """Their moments have no spread at all."""
    shown = np.full(200, 5.0)
    band = band_of_rate(moments(np.zeros(200), shown), 0.01, ERROR)
    assert band == Band(0.0, 0.0, pytest.approx(0.0088, rel=0.01))
