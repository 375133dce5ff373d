"""A staged ramp: what the operator plans, what must not get worse, what was seen, and where the plan stands."""

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

from msgspec import Struct


class Arm(StrEnum):
    """What a step compares. A viewer who is in neither arm is `NONE`."""

    EXPOSED = "exposed"
    CONTROL = "control"
    NONE = "none"


class Metric(StrEnum):
    STATUSES_VIEWED = "statuses_viewed"
    SESSION_SECONDS = "session_seconds"
    RETURNS_NEXT_DAY = "returns_next_day"
    POSTS_MADE = "posts_made"
    HIDE_RATE = "hide_rate"
    REPORT_RATE = "report_rate"
    AD_LOAD = "ad_load"
    CLICK_RATE = "click_rate"
    NO_FILL = "no_fill"
    ERRORS = "errors"
    DECISION_P99_MS = "decision_p99_ms"
    FEED_LATENCY_P99_MS = "feed_latency_p99_ms"
    SPEND_PACE = "spend_pace"
    CALIBRATION = "calibration"


COMPARED = frozenset(
    {Metric.STATUSES_VIEWED, Metric.SESSION_SECONDS, Metric.RETURNS_NEXT_DAY, Metric.POSTS_MADE}
)
"""Outcomes of exposed viewers relative to the control's: a bound of 0.02 is a change of 2 %."""
OF_EXPOSED = frozenset({Metric.HIDE_RATE, Metric.REPORT_RATE, Metric.AD_LOAD, Metric.CLICK_RATE})
"""Ratios among exposed viewers alone: per impression, `AD_LOAD` in ads per session."""
SHARES = frozenset({Metric.HIDE_RATE, Metric.REPORT_RATE, Metric.CLICK_RATE, Metric.NO_FILL, Metric.ERRORS})
"""Of all: 1 at the most."""
LATENCIES = frozenset({Metric.DECISION_P99_MS, Metric.FEED_LATENCY_P99_MS})
OPERATIONAL = frozenset(Metric) - COMPARED - OF_EXPOSED
"""Plain figures of the last minutes against a threshold."""


class Direction(StrEnum):
    """Where harm lies."""

    RISES = "rises"
    FALLS = "falls"


class OnBreach(StrEnum):
    ROLL_BACK = "roll_back"
    HOLD = "hold"
    WARN = "warn"


class Guardrail(Struct, frozen=True):
    """`metric` must not fall below, or rise above, `bound`; nothing is said of it before `min_viewers` of each arm were seen."""

    metric: Metric
    direction: Direction
    bound: float
    on_breach: OnBreach = OnBreach.ROLL_BACK
    min_viewers: int = 100


class Step(Struct, frozen=True):
    """Left at the soonest after `min_time_s`, with `min_viewers` exposed; entered only by a person with `approval`."""

    percent_bp: int
    min_time_s: int
    min_viewers: int = 0
    approval: bool = False


class Plan(Struct, frozen=True):
    """Without `countries` it moves the surface's own percent. It advances only in `hours` of `time_zone` (none: at any)."""

    surface: str
    steps: tuple[Step, ...]
    guardrails: tuple[Guardrail, ...]
    countries: tuple[str, ...] = ()
    starts_at_ms: int = 0
    hours: tuple[int, ...] = ()
    time_zone: str = "UTC"


class Status(StrEnum):
    """`HELD` waits for a guardrail or a mismatch to be looked at, `AWAITING_APPROVAL` and `PAUSED` for a person."""

    SCHEDULED = "scheduled"
    RUNNING = "running"
    HELD = "held"
    AWAITING_APPROVAL = "awaiting_approval"
    PAUSED = "paused"
    COMPLETED = "completed"
    ROLLED_BACK = "rolled_back"
    ABORTED = "aborted"


ENDED = frozenset({Status.COMPLETED, Status.ROLLED_BACK, Status.ABORTED})


class Act(StrEnum):
    """What moves a plan: the look of each minute, or a person."""

    PLAN = "plan"
    LOOK = "look"
    PAUSE = "pause"
    RESUME = "resume"
    ADVANCE = "advance"
    APPROVE = "approve"
    ROLL_BACK = "roll-back"
    ABORT = "abort"


class Ramp(Struct, frozen=True):
    """Where a plan stands. `step` is -1 before the first; `good_bp` is the percent that a roll-back returns to."""

    id: int
    plan: Plan
    status: Status
    step: int
    step_entered_at_ms: int
    good_bp: int
    reason: str


class Moments(NamedTuple):
    """Sums over viewers of a ratio's numerator x and denominator y, which the delta method needs."""

    viewers: int
    x: float
    y: float
    xx: float
    xy: float
    yy: float


class Evidence(NamedTuple):
    """What one step has seen so far. `exposed_share` is what share of both arms' viewers ought to be exposed;
    `operational` lacks what could not be measured. Events of the last `events_behind_ms` are not among what is `of_exposed` yet."""

    exposed: int
    control: int
    exposed_share: float
    compared: Mapping[Metric, tuple[Moments, Moments]]
    of_exposed: Mapping[Metric, Moments]
    operational: Mapping[Metric, float]
    events_behind_ms: int = 0


class Finding(StrEnum):
    NO_DATA = "no_data"
    OPEN = "open"
    FINE = "fine"
    BREACHED = "breached"


class Verdict(Struct, frozen=True):
    """Of one guardrail at one look. `low` and `high` hold at every look at once; `words` tells it with the figures."""

    guardrail: Guardrail
    finding: Finding
    estimate: float | None
    low: float | None
    high: float | None
    words: str


class Mismatch(NamedTuple):
    """Whether the arms' sizes contradict `exposed_share`, judged at every look at once."""

    found: bool
    p_value: float
    words: str


class Look(Struct, frozen=True):
    """What a plan saw of a step at one moment, since the step was entered, and what it thought of it."""

    at_ms: int
    step: int
    exposed: int
    control: int
    verdicts: tuple[Verdict, ...]
    mismatch: Mismatch | None
