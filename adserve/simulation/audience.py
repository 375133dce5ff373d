"""Invented viewers as a step of a ramp sees them: few are there often, most seldom, all of them less at night, and they come back.

Everything is drawn at once for the rest of an hour and added up by minute, so that a plan of days takes less than a second. Evidence is
what a step would gather: moments over viewers, of what each did since the step began.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from adserve.domain.ramps import COMPARED, OF_EXPOSED, OPERATIONAL, Evidence, Metric, Moments
from adserve.domain.time import DAY_MS, HOUR_MS, MINUTE_MS
from adserve.rollout.arms import exposed_share

VIEWERS_MAX = 2_000_000
HOLDOUT_BP = 500
BASE: Mapping[Metric, float] = {
    Metric.HIDE_RATE: 0.004,
    Metric.REPORT_RATE: 0.0005,
    Metric.CLICK_RATE: 0.02,
    Metric.AD_LOAD: 1.1,
    Metric.NO_FILL: 0.05,
    Metric.ERRORS: 0.0005,
    Metric.DECISION_P99_MS: 8.0,
    Metric.FEED_LATENCY_P99_MS: 15.0,
    Metric.SPEND_PACE: 0.05,
    Metric.CALIBRATION: 1.0,
}
"""What is seen of exposed viewers where nothing has an effect; the ad load follows from the statuses of a session, so it is roughly that."""

_VISITS_A_DAY, _VISITS_SIGMA = 4.0, 1.0
_STATUSES_A_VISIT, _STATUSES_SIGMA = 12.0, 0.7
_SECONDS_A_STATUS, _SECONDS_SIGMA = 5.0, 0.5
_POSTS_A_VISIT, _POSTS_SIGMA = 0.2, 1.0
_TASTE_SIGMA = 0.8
"""How much viewers differ in clicking, hiding and reporting."""
_STATUSES_AN_AD, _ADS_MAX = 6, 3
_NIGHT = 0.8
"""How far the rate of visits falls below and rises above its mean within a day."""
_MINUTES = HOUR_MS // MINUTE_MS
_ARMS = 2
_NEVER = -2
_NOBODY = np.zeros(0, np.int64)
_ROUNDING = 1e-6
"""Sums below are nothing: they are differences of larger ones."""

_SESSIONS, _STATUSES, _SECONDS, _POSTS, _DAYS, _RETURNS, _ADS, _CLICKS, _HIDES, _REPORTS = range(10)
_COLUMNS = 10
_RATIOS: Mapping[Metric, tuple[int, int]] = {
    Metric.STATUSES_VIEWED: (_STATUSES, _SESSIONS),
    Metric.SESSION_SECONDS: (_SECONDS, _SESSIONS),
    Metric.POSTS_MADE: (_POSTS, _SESSIONS),
    Metric.RETURNS_NEXT_DAY: (_RETURNS, _DAYS),
    Metric.CLICK_RATE: (_CLICKS, _ADS),
    Metric.HIDE_RATE: (_HIDES, _ADS),
    Metric.REPORT_RATE: (_REPORTS, _ADS),
    Metric.AD_LOAD: (_ADS, _SESSIONS),
}
"""Numerator and denominator; the first one's viewers are all who came."""
_OF_ADS = {Metric.CLICK_RATE: _CLICKS, Metric.HIDE_RATE: _HIDES, Metric.REPORT_RATE: _REPORTS}

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]
Effects = Mapping[Metric, float]
"""By how much each metric changes for exposed viewers, as a share of itself."""


class _Seen(NamedTuple):
    """One row a visit, or a word on whether a viewer of yesterday came today, in order of viewer and time: the viewer's place among the
    members, the minute, and what is counted of it."""

    member: Ints
    minute: Ints
    done: Floats


class _Presence:
    """The last day on which each member was there, and the one before it."""

    def __init__(self, members: int) -> None:
        self._last = np.full(members, _NEVER)
        self._before = np.full(members, _NEVER)

    def note(self, there: Flags, day: int) -> None:
        first = there & (self._last != day)
        self._before[first] = self._last[first]
        self._last[first] = day

    def returned(self, day: int) -> tuple[Ints, Flags]:
        """Members of the day before, and whether they came on this one."""
        today = self._last == day
        members = np.flatnonzero(np.where(today, self._before, self._last) == day - 1)
        return members, today[members]


class Audience:
    """`effects` are what ads do to those who see them."""

    def __init__(self, viewers: int, effects: Effects, seed: int) -> None:
        self._chance = np.random.default_rng(seed)
        self._effects = effects
        self._visits_a_day = self._spread(_VISITS_A_DAY, _VISITS_SIGMA, viewers)
        self._statuses = self._spread(_STATUSES_A_VISIT, _STATUSES_SIGMA, viewers)
        self._posts = self._spread(_POSTS_A_VISIT, _POSTS_SIGMA, viewers)
        self._taste = self._spread(1.0, _TASTE_SIGMA, viewers)
        self._bucket = self._chance.random(viewers)
        self._control_bucket = self._chance.random(viewers)
        self._in_holdout = self._chance.random(viewers) * 10_000 < HOLDOUT_BP

    def _spread(self, mean: float, sigma: float, count: int) -> Floats:
        """Heavy-tailed around `mean`."""
        return self._chance.lognormal(np.log(mean) - sigma**2 / 2, sigma, count)

    def step(self, percent_bp: int, entered_at_ms: int) -> Iterator[Evidence]:
        """What was seen at the end of each minute since a step of `percent_bp` was entered, for ever."""
        exposed, control = self._arms(percent_bp / 10_000)
        members = np.concatenate([exposed, control])
        arm = np.repeat([0, 1], [exposed.size, control.size])
        share = exposed_share(percent_bp, HOLDOUT_BP)
        so_far, presence = np.zeros((members.size, _COLUMNS)), _Presence(members.size)
        totals = np.zeros((_ARMS, len(_RATIOS), len(Moments._fields)))
        now_ms = entered_at_ms
        while True:
            minutes = _MINUTES - now_ms % HOUR_MS // MINUTE_MS
            seen = self._seen(members, arm == 0, presence, now_ms, minutes)
            by_minute = totals + np.cumsum(_moments(seen, arm, so_far, minutes), axis=0)
            totals = by_minute[-1]
            for minute in by_minute.tolist():
                yield self._evidence(minute, share)
            now_ms += minutes * MINUTE_MS

    def _arms(self, share: float) -> tuple[Ints, Ints]:
        """Viewers exposed and in control, drawn as `rollout/arms.py` says: as many in control as exposed while there are, then the
        rest, then the holdout."""
        admitted = self._bucket < share
        if share >= 1:
            return np.flatnonzero(~self._in_holdout), np.flatnonzero(self._in_holdout)
        wanted = self._control_bucket < share / (1 - share)
        return np.flatnonzero(admitted & ~self._in_holdout), np.flatnonzero(
            ~admitted & wanted & ~self._in_holdout
        )

    def _seen(self, members: Ints, sees_ads: Flags, presence: _Presence, now_ms: int, minutes: int) -> _Seen:
        chance = self._chance
        day, of_day = divmod(now_ms, DAY_MS)
        busy = 1 - _NIGHT * np.cos(2 * np.pi * of_day / DAY_MS)
        counts = chance.poisson(self._visits_a_day[members] * (busy * minutes * MINUTE_MS / DAY_MS))
        presence.note(counts > 0, day)
        came = np.repeat(np.arange(members.size), counts) * minutes
        came += chance.integers(0, minutes, came.size)
        ends = of_day + minutes * MINUTE_MS == DAY_MS
        yesterday, returned = presence.returned(day) if ends else (_NOBODY, _NOBODY.astype(bool))
        when = np.concatenate([came, yesterday * minutes + minutes - 1])
        order = np.argsort(when, kind="stable")
        member, minute = np.divmod(when[order], minutes)
        done = np.zeros((when.size, _COLUMNS))
        done[: came.size, _SESSIONS] = 1
        done[came.size :, _DAYS] = 1
        done[came.size :, _RETURNS] = returned
        done = done[order]
        self._do(done, members[member], sees_ads[member])
        return _Seen(member, minute, done)

    def _do(self, done: Floats, viewer: Ints, exposed: Flags) -> None:
        """What each does on a visit."""
        chance, there = self._chance, done[:, _SESSIONS]
        statuses = there * np.ceil(chance.exponential(self._statuses[viewer]))
        noise = self._spread(_SECONDS_A_STATUS, _SECONDS_SIGMA, viewer.size)
        done[:, _STATUSES] = statuses * self._times(Metric.STATUSES_VIEWED, exposed)
        done[:, _SECONDS] = statuses * noise * self._times(Metric.SESSION_SECONDS, exposed)
        posts = there * chance.poisson(self._posts[viewer])
        done[:, _POSTS] = posts * self._times(Metric.POSTS_MADE, exposed)
        done[:, _RETURNS] *= self._times(Metric.RETURNS_NEXT_DAY, exposed)
        ads = np.where(exposed, np.minimum(statuses // _STATUSES_AN_AD, _ADS_MAX), 0)
        done[:, _ADS] = ads * self._times(Metric.AD_LOAD, exposed)
        for metric, column in _OF_ADS.items():
            done[:, column] = chance.poisson(done[:, _ADS] * self._taste[viewer] * self._based(metric))

    def _times(self, metric: Metric, exposed: Flags) -> Floats:
        return np.where(exposed, 1 + self._effects.get(metric, 0.0), 1.0)

    def _based(self, metric: Metric) -> float:
        return BASE[metric] * (1 + self._effects.get(metric, 0.0))

    def _evidence(self, totals: list[list[list[float]]], share: float) -> Evidence:
        exposed, control = (
            {
                metric: Moments(round(viewers), *sums)
                for metric, (viewers, *sums) in zip(_RATIOS, arm, strict=True)
            }
            for arm in totals
        )
        return Evidence(
            exposed=exposed[Metric.STATUSES_VIEWED].viewers,
            control=control[Metric.STATUSES_VIEWED].viewers,
            exposed_share=share,
            compared={metric: (exposed[metric], control[metric]) for metric in _RATIOS if metric in COMPARED},
            of_exposed={metric: exposed[metric] for metric in _RATIOS if metric in OF_EXPOSED},
            operational={metric: self._based(metric) for metric in OPERATIONAL},
        )


def _moments(seen: _Seen, arm: Ints, so_far: Floats, minutes: int) -> Floats:
    """What each minute adds to the moments of each arm and ratio. `so_far` moves on."""
    member, minute, done = seen
    after = np.cumsum(done, axis=0)
    opens = np.flatnonzero(np.diff(member, prepend=-1))
    before_hour = so_far[member[opens]] - (after[opens] - done[opens])
    after += np.repeat(before_hour, np.diff(opens, append=member.size), axis=0)
    before = after - done
    so_far[member] = after  # of one viewer's visits the last is kept
    place = minute * _ARMS + arm[member]
    added = np.empty((minutes * _ARMS, len(_RATIOS), len(Moments._fields)))
    for number, (x, y) in enumerate(_RATIOS.values()):
        sums = (  # as in Moments
            (after[:, y] > _ROUNDING) ^ (before[:, y] > _ROUNDING),
            done[:, x],
            done[:, y],
            after[:, x] ** 2 - before[:, x] ** 2,
            after[:, x] * after[:, y] - before[:, x] * before[:, y],
            after[:, y] ** 2 - before[:, y] ** 2,
        )
        for kind, column in enumerate(sums):
            added[:, number, kind] = np.bincount(place, column, minutes * _ARMS)
    return added.reshape(minutes, _ARMS, *added.shape[1:])
