"""Judges the guardrails of a plan by what its step has seen, in words that an operator can act on.

A guardrail is breached when the whole band of what it watches lies beyond its limit, and fine when the whole band lies within. The plan
may be wrong about that once in twenty: PLAN_ERROR is shared equally by all guardrails with a band and all steps, and each share
holds for every look of its step. Operational figures are those of a window and are compared as they are.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from msgspec.structs import replace

from adserve.domain.ramps import (
    COMPARED,
    OF_EXPOSED,
    OPERATIONAL,
    Direction,
    Evidence,
    Finding,
    Guardrail,
    Look,
    Metric,
    Plan,
    Ramp,
    Verdict,
)
from adserve.domain.time import MINUTE_MS
from adserve.rollout.mismatch import mismatch_of
from adserve.rollout.sequences import Band, band_of_change, band_of_rate

PLAN_ERROR = 0.05
"""How often a plan that breaks no limit may be said to break one, all steps, guardrails and looks together."""
SCALE_MIN = 0.001
"""The size of effect that bands of guardrails with a bound of zero are narrowest for."""
BANDED_VIEWERS_MIN = 10
"""Bands rest on a central limit: with two or three viewers one in eleven was wrong within four hours where one in forty may be, with
five one in forty-three."""
WHOLE_BP = 10_000
EVENTS_BEHIND_MAX_MS = 10 * MINUTE_MS
"""With more of them still to be counted, a rate among exposed viewers is of the past: good enough for a breach, not for a step up."""


class _Subject(NamedTuple):
    """`figure` is how a value is told, `unit` what follows it."""

    name: str
    figure: Callable[[float], str]
    unit: str = ""


def _change(value: float) -> str:
    return f"{value * 100:+.2f} %"


def _percent(value: float) -> str:
    return f"{value * 100:.3g} %"


def _number(value: float) -> str:
    return f"{value:,.4g}"


def _ms(value: float) -> str:
    return f"{value:,.4g} ms"


_SUBJECTS: Mapping[Metric, _Subject] = {
    Metric.STATUSES_VIEWED: _Subject("statuses viewed", _change),
    Metric.SESSION_SECONDS: _Subject("session seconds", _change),
    Metric.RETURNS_NEXT_DAY: _Subject("returns next day", _change),
    Metric.POSTS_MADE: _Subject("posts made", _change),
    Metric.HIDE_RATE: _Subject("hides", _percent, " of impressions"),
    Metric.REPORT_RATE: _Subject("reports", _percent, " of impressions"),
    Metric.CLICK_RATE: _Subject("clicks", _percent, " of impressions"),
    Metric.AD_LOAD: _Subject("ads", _number, " a session"),
    Metric.NO_FILL: _Subject("no-fill", _percent, " of requests"),
    Metric.ERRORS: _Subject("errors", _percent, " of requests"),
    Metric.DECISION_P99_MS: _Subject("decisions' p99", _ms),
    Metric.FEED_LATENCY_P99_MS: _Subject("feed's p99", _ms),
    Metric.SPEND_PACE: _Subject("spend off its pace", _percent),
    Metric.CALIBRATION: _Subject("clicks", _number, " of those predicted"),
}


def judge(plan: Plan, step: int, evidence: Evidence) -> list[Verdict]:
    """A verdict for each guardrail of the plan, in their order."""
    banded = sum(guardrail.metric not in OPERATIONAL for guardrail in plan.guardrails)
    error = PLAN_ERROR / (max(1, banded) * len(plan.steps))
    against = "in the holdout" if plan.steps[step].percent_bp == WHOLE_BP else "in control"
    return [_judged(guardrail, evidence, error, against) for guardrail in plan.guardrails]


def look_at(ramp: Ramp, evidence: Evidence, now_ms: int) -> Look:
    """What the plan is to know of the step that it stands at."""
    verdicts = judge(ramp.plan, ramp.step, evidence)
    mismatch = mismatch_of(evidence.exposed, evidence.control, evidence.exposed_share)
    return Look(now_ms, ramp.step, evidence.exposed, evidence.control, tuple(verdicts), mismatch)


def limit_of(guardrail: Guardrail) -> float:
    """The bound with the sign and in the unit of the verdict's estimate: a drop of 2 % is -0.02."""
    falls = guardrail.metric in COMPARED and guardrail.direction is Direction.FALLS
    return -guardrail.bound if falls else guardrail.bound


def _judged(guardrail: Guardrail, evidence: Evidence, error: float, against: str) -> Verdict:
    if guardrail.metric in COMPARED:
        return _compared(guardrail, evidence, error, against)
    if guardrail.metric in OF_EXPOSED:
        return _of_exposed(guardrail, evidence, error)
    return _operational(guardrail, evidence)


def _compared(guardrail: Guardrail, evidence: Evidence, error: float, against: str) -> Verdict:
    arms = evidence.compared.get(guardrail.metric)
    exposed, control = (arms[0].viewers, arms[1].viewers) if arms else (0, 0)
    viewers = f"{exposed:,} viewers against {control:,} {against}"
    if arms is None or min(exposed, control) < guardrail.min_viewers:
        verdict = _no_data(guardrail, viewers)
        # A step beyond half of all may have too small a control for ever: it must not wait for that.
        scarce = evidence.exposed_share > 0.5 and evidence.control < guardrail.min_viewers
        return replace(verdict, finding=Finding.OPEN) if scarce else verdict
    band = band_of_change(*arms, max(guardrail.bound, SCALE_MIN), error)
    return _banded(guardrail, band, viewers)


def _of_exposed(guardrail: Guardrail, evidence: Evidence, error: float) -> Verdict:
    moments = evidence.of_exposed.get(guardrail.metric)
    viewers = f"{moments.viewers if moments else 0:,} viewers"
    if moments is None or moments.viewers < guardrail.min_viewers:
        return _no_data(guardrail, viewers)
    verdict = _banded(guardrail, band_of_rate(moments, max(guardrail.bound, SCALE_MIN), error), viewers)
    if verdict.finding is Finding.BREACHED or evidence.events_behind_ms <= EVENTS_BEHIND_MAX_MS:
        return verdict
    missing = f"events of the last {evidence.events_behind_ms // MINUTE_MS} min are still to be counted"
    return replace(verdict, finding=Finding.NO_DATA, words=f"{verdict.words}; {missing}")


def _operational(guardrail: Guardrail, evidence: Evidence) -> Verdict:
    name, figure, unit = _SUBJECTS[guardrail.metric]
    value = evidence.operational.get(guardrail.metric)
    if value is None:
        return Verdict(
            guardrail, Finding.NO_DATA, None, None, None, f"{name}: not measured in the last minutes"
        )
    beyond = value > guardrail.bound if guardrail.direction is Direction.RISES else value < guardrail.bound
    finding = Finding.BREACHED if beyond else Finding.FINE
    words = f"{name} {figure(value)}{unit}: {_judged_in_words(guardrail, finding)}"
    return Verdict(guardrail, finding, value, None, None, words)


def _no_data(guardrail: Guardrail, viewers: str) -> Verdict:
    words = f"{_SUBJECTS[guardrail.metric].name}: {viewers}, {guardrail.min_viewers:,} needed"
    return Verdict(guardrail, Finding.NO_DATA, None, None, None, words)


def _banded(guardrail: Guardrail, band: Band | None, of_whom: str) -> Verdict:
    name, figure, unit = _SUBJECTS[guardrail.metric]
    if band is None:
        return Verdict(
            guardrail, Finding.OPEN, None, None, None, f"{name}: nothing to compare yet, {of_whom}"
        )
    finding = _finding(band, limit_of(guardrail), guardrail.direction)
    high = "no upper end" if band.high is None else figure(band.high)
    seen = f"{name} {figure(band.estimate)}{unit} ({figure(band.low)} to {high}), {of_whom}"
    words = f"{seen}: {_judged_in_words(guardrail, finding)}"
    return Verdict(guardrail, finding, band.estimate, band.low, band.high, words)


def _finding(band: Band, limit: float, direction: Direction) -> Finding:
    low, high = band.low, float("inf") if band.high is None else band.high
    if direction is Direction.FALLS:
        low, high, limit = -high, -low, -limit
    if low > limit:
        return Finding.BREACHED
    return Finding.FINE if high < limit else Finding.OPEN


def _judged_in_words(guardrail: Guardrail, finding: Finding) -> str:
    limit = f"the {_SUBJECTS[guardrail.metric].figure(limit_of(guardrail))} allowed"
    match finding:
        case Finding.BREACHED:
            return f"worse than {limit}"
        case Finding.FINE:
            return f"no worse than {limit}"
        case _:
            return f"open whether it is worse than {limit}"
