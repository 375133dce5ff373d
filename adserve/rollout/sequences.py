"""Confidence bands that hold at every look at once, so that looking each minute costs no false alarms.

The boundary is the one-sided normal mixture of Robbins (1970) as Howard, Ramdas, McAuliffe and Sekhon ("Time-uniform,
nonparametric, nonasymptotic confidence sequences", 2021) and Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas ("Time-uniform
central limit theory and asymptotic confidence sequences", 2024, the one-sided sequence) have it: a Brownian motion with
variance v exceeds

    sqrt(2 (v + 1/scale^2) log(1 + sqrt(1 + v scale^2) / (2 error)))

at any v > 0 with a probability of at most `error`. Each end of a band has an `error` of its own.

Two things differ from a stream of new viewers, because viewers come back and their sums grow.

- What is random is the arm that each viewer was drawn into, so the viewer is the unit: the moments are over viewers' whole sums so far,
  and the delta method makes the variance of a ratio of them.
- The clock v is the information 1/se^2 of the estimate, not the number of viewers. An estimate whose covariance with a later one is the
  later one's variance is a Brownian motion in this clock (Scharfstein, Tsiatis and Robins 1997): so it is for new viewers, and, with
  lasting differences between viewers and fresh chance at each visit, also for the same ones coming back. Where visits of one viewer
  hang together more than that, looks resemble each other more than those of a Brownian motion, and by Slepian's inequality fewer of them
  cross. A clock of viewers would stand still while returning ones keep moving the estimate.
"""

import math
from typing import NamedTuple

from adserve.domain.ramps import Moments


class Band(NamedTuple):
    """`high` is None where the data do not bound it."""

    estimate: float
    low: float
    high: float | None


class _Ratio(NamedTuple):
    value: float
    variance: float


def boundary(information: float, scale: float, error: float) -> float:
    """How many standard errors an estimate stays within on one side, at every look. It is narrowest for effects of about `scale`."""
    grown = information * scale**2
    return math.sqrt(2 * (1 + 1 / grown) * math.log1p(math.sqrt(1 + grown) / (2 * error)))


def band_of_rate(moments: Moments, scale: float, error: float) -> Band | None:
    """Of x per y, where x counts events. Their variance is taken to be no less than that of independent events at a rate of
    `scale`: viewers among whom nothing happened yet must not look certain."""
    ratio = _ratio(moments)
    if ratio is None:
        return None
    variance = max(ratio.variance, scale / moments.y)
    width = boundary(1 / variance, scale, error) * math.sqrt(variance)
    return Band(ratio.value, max(0.0, ratio.value - width), ratio.value + width)


def band_of_change(exposed: Moments, control: Moments, scale: float, error: float) -> Band | None:
    """Of the exposed viewers' x per y relative to the control's, less one. The ends are Fieller's (1954): the ratios r for which
    `exposed - r * control` is within the boundary, which stays right when little of x was seen, or none among the exposed."""
    over, under = _ratio(exposed), _ratio(control)
    if over is None or under is None or under.value <= 0 or over.variance + under.variance <= 0:
        return None
    ratio = over.value / under.value
    width = boundary(under.value**2 / (over.variance + under.variance), scale, error)
    of_over = over.value**2 - width**2 * over.variance
    of_under = under.value**2 - width**2 * under.variance
    middle = over.value * under.value
    spread = math.sqrt(max(0.0, middle**2 - of_over * of_under))
    if of_under <= 0:  # the control itself may be next to nothing: only a small ratio could be excluded
        low = max(0.0, of_over / (middle + spread)) if middle + spread > 0 else 0.0
        return Band(ratio - 1, low - 1, None)
    return Band(ratio - 1, max(0.0, (middle - spread) / of_under) - 1, (middle + spread) / of_under - 1)


def _ratio(moments: Moments) -> _Ratio | None:
    """Sum of x by sum of y, and its variance by the delta method."""
    viewers, x, y, xx, xy, yy = moments
    if viewers < 2 or y <= 0:
        return None
    value = x / y
    squares = max(0.0, xx - 2 * value * xy + value**2 * yy)
    return _Ratio(value, squares * viewers / ((viewers - 1) * y**2))
