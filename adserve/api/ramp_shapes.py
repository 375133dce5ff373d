"""How plans, their standing and what they saw travel, and how a plan that comes is checked."""

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Annotated, Literal

from msgspec import Meta, Struct, structs

from adserve.api.shapes import Moment, TimeZone, check_moment, check_time_zone
from adserve.domain.ramps import (
    COMPARED,
    ENDED,
    LATENCIES,
    OPERATIONAL,
    SHARES,
    Act,
    Direction,
    Finding,
    Guardrail,
    Look,
    Metric,
    Mismatch,
    OnBreach,
    Plan,
    Status,
    Step,
    Verdict,
)
from adserve.domain.targeting import Country
from adserve.domain.time import from_ms, to_ms
from adserve.rollout.figures import BOUNDS_MS
from adserve.rollout.guardrails import BANDED_VIEWERS_MIN
from adserve.rollout.ramps import BEFORE_FIRST, percent_bp_of, refusal, rises, waits_for
from adserve.store.ramps import Made, Moved
from adserve.web.problems import invalid

STEPS_MAX = 30
GUARDRAILS_MAX = 30
COUNTRIES_MAX = 250
VIEWERS_MAX = 10**9
STEP_S_MAX = 366 * 86_400

Viewers = Annotated[int, Meta(ge=0, le=VIEWERS_MAX)]
Reason = Annotated[str, Meta(min_length=1, max_length=500, description="For the history")]


class StepBody(Struct, frozen=True, forbid_unknown_fields=True):
    """Left at the soonest after `min_time_s`, with `min_viewers` exposed. With `approval`, a person lets the plan enter it."""

    percent: Annotated[float, Meta(gt=0, le=100, description="Of up to two decimals")]
    min_time_s: Annotated[int, Meta(ge=0, le=STEP_S_MAX)]
    min_viewers: Viewers = 0
    approval: bool = False


class GuardrailBody(Struct, frozen=True, forbid_unknown_fields=True):
    """`metric` must not fall below, or rise above, `bound`. Statuses viewed, session seconds, returns and posts are held against the
    control: there a bound of 0.02 is a change of 2 %. Others are held against the bound itself. Nothing is said of it before
    `min_viewers` of each arm told of it; a plan that has exposed as many does not advance before."""

    metric: Metric
    direction: Direction
    bound: Annotated[float, Meta(ge=0, le=1e9)]
    on_breach: OnBreach = OnBreach.ROLL_BACK
    min_viewers: Viewers = 100


class PlanBody(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Steps rise. Without `countries` the plan moves the surface's own percent, without `starts_at` it starts at once. It advances by
    itself only in these hours of its time zone (none: at any)."""

    surface: str
    steps: Annotated[list[StepBody], Meta(min_length=1, max_length=STEPS_MAX)]
    guardrails: Annotated[list[GuardrailBody], Meta(max_length=GUARDRAILS_MAX)] = []
    countries: Annotated[list[Country], Meta(max_length=COUNTRIES_MAX)] = []
    starts_at: Moment | None = None
    hours: Annotated[list[Annotated[int, Meta(ge=0, le=23)]], Meta(max_length=24)] = []
    time_zone: TimeZone = "UTC"
    reason: Reason = "planned"


class ActBody(Struct, frozen=True, forbid_unknown_fields=True):
    """With a `step`, the act is of that one: refused with 409 where the plan stands at another by now, so that a call sent twice, or as the
    plan moves by itself, takes one step and not two."""

    reason: Reason
    step: Annotated[int, Meta(ge=0, le=STEPS_MAX)] | None = None


class StepShown(StepBody, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`exposed` and `control` are the viewers of each arm that the step has seen, null where it was never looked at."""

    state: Literal["passed", "current", "ahead"]
    exposed: int | None
    control: int | None


class VerdictShown(Struct, frozen=True, kw_only=True):
    """`low` and `high` hold at every look at once; they and `estimate` are relative to the control where the bound is."""

    metric: Metric
    direction: Direction
    bound: float
    on_breach: OnBreach
    finding: Finding
    estimate: float | None
    low: float | None
    high: float | None
    words: str


class MismatchShown(Struct, frozen=True, kw_only=True):
    """Whether the arms' sizes contradict what was asked for."""

    found: bool
    p_value: float
    words: str


class LookShown(Struct, frozen=True, kw_only=True):
    """What the plan saw of a step since it was entered, and what it thought of it. `step` counts from 1."""

    at: Moment
    step: int
    exposed: int
    control: int
    verdicts: list[VerdictShown]
    mismatch: MismatchShown | None


class MoveShown(Struct, frozen=True, kw_only=True):
    """A move of the plan's own (`act` is `plan` when it was made, else `look`), or of a person, by the name of the key. `percent` is where its
    places stood from then on; `seen` is the newest look at the step that it moved from."""

    id: int
    at: Moment
    act: Act
    by: str | None
    status: Status
    step: int
    percent: float
    reason: str
    seen: LookShown | None


class RampShown(Struct, frozen=True, kw_only=True):
    """`step` counts from 1; 0 is before the first. `percent` is where the plan's places stand (stood, when it has ended), `good_percent`
    what a roll-back returns to. `waits_for` says in words what keeps it from the next step. `acts` are those that a person can do now."""

    id: int
    surface: str
    countries: list[str]
    steps: list[StepShown]
    guardrails: list[GuardrailBody]
    starts_at: Moment
    hours: list[int]
    time_zone: str
    made_at: Moment
    made_by: str
    status: Status
    ended: bool
    step: int
    step_entered_at: Moment | None
    percent: float
    good_percent: float
    reason: str
    waits_for: list[str]
    acts: list[Act]
    look: LookShown | None


def decode_plan(body: PlanBody, surfaces: Collection[str], now_ms: int) -> Plan:
    """Raises Problem for what no type can check."""
    if body.surface not in surfaces:
        raise invalid("$.surface", f"is not one of {', '.join(surfaces)}")
    check_time_zone("$.time_zone", body.time_zone)
    if body.starts_at is not None:
        check_moment("$.starts_at", body.starts_at)
    _check_once("$.countries", Counter(body.countries))
    _check_once("$.hours", Counter(body.hours))
    _check_once("$.guardrails", Counter((each.metric, each.on_breach) for each in body.guardrails))
    plan = Plan(
        body.surface,
        tuple(_decode_step(f"$.steps[{place}]", step) for place, step in enumerate(body.steps)),
        tuple(
            _decode_guardrail(f"$.guardrails[{place}]", each) for place, each in enumerate(body.guardrails)
        ),
        tuple(sorted(body.countries)),
        now_ms if body.starts_at is None else to_ms(body.starts_at),
        tuple(sorted(body.hours)),
        body.time_zone,
    )
    if not rises(plan):
        raise invalid("$.steps", "do not rise from one to the next")
    return plan


def _check_once(field: str, times: Mapping[object, int]) -> None:
    if any(count > 1 for count in times.values()):
        raise invalid(field, "names something twice")


def _decode_step(field: str, step: StepBody) -> Step:
    return Step(
        basis_points(f"{field}.percent", step.percent), step.min_time_s, step.min_viewers, step.approval
    )


def _decode_guardrail(field: str, body: GuardrailBody) -> Guardrail:
    """One that nothing could breach protects nobody."""
    rises = body.direction is Direction.RISES
    if body.metric in COMPARED and not rises and body.bound >= 1:
        raise invalid(f"{field}.bound", "is a share: 0.02 is a change of 2 %")
    if body.metric in SHARES and body.bound >= 1:
        raise invalid(f"{field}.bound", "is a share: 0.02 is 2 %")
    if body.metric in LATENCIES and rises and body.bound >= BOUNDS_MS[-1]:
        raise invalid(f"{field}.bound", f"is more than is measured, {BOUNDS_MS[-1]:,.0f} ms")
    if body.metric not in COMPARED and not rises and body.bound == 0:
        raise invalid(f"{field}.bound", "is 0, below which nothing falls")
    if body.metric not in OPERATIONAL and body.min_viewers < BANDED_VIEWERS_MIN:
        raise invalid(
            f"{field}.min_viewers", f"is less than {BANDED_VIEWERS_MIN}: of so few chance tells anything"
        )
    return Guardrail(body.metric, body.direction, body.bound, body.on_breach, body.min_viewers)


def basis_points(field: str, percent: float) -> int:
    points = round(percent * 100)
    if abs(percent * 100 - points) > 1e-6 or (percent > 0) != (points > 0):
        raise invalid(field, "has more than two decimals")
    return points


def encode_ramp(made: Made, looks: Mapping[int, Look], now_ms: int, ads_paused: bool) -> RampShown:
    """`looks` has the newest one of each step that was looked at."""
    ramp, plan = made.ramp, made.ramp.plan
    look = looks.get(ramp.step)
    if look is not None and look.at_ms < ramp.step_entered_at_ms:
        look = None  # the step began anew
    waits = waits_for(ramp, look.verdicts if look else (), look.exposed if look else 0, now_ms)
    return RampShown(
        id=ramp.id,
        surface=plan.surface,
        countries=list(plan.countries),
        steps=[
            _encode_step(step, place, ramp.step, looks.get(place)) for place, step in enumerate(plan.steps)
        ],
        guardrails=[GuardrailBody(**structs.asdict(each)) for each in plan.guardrails],
        starts_at=from_ms(plan.starts_at_ms),
        hours=list(plan.hours),
        time_zone=plan.time_zone,
        made_at=made.made_at,
        made_by=made.made_by,
        status=ramp.status,
        ended=ramp.status in ENDED,
        step=ramp.step + 1,
        step_entered_at=None if ramp.step == BEFORE_FIRST else from_ms(ramp.step_entered_at_ms),
        percent=percent_bp_of(ramp) / 100,
        good_percent=ramp.good_bp / 100,
        reason=ramp.reason,
        waits_for=["ads are paused", *waits] if ads_paused and ramp.status not in ENDED else waits,
        acts=[act for act in PERSONS if refusal(ramp, act, ads_paused) is None],
        look=None if look is None else encode_look(look),
    )


PERSONS = tuple(act for act in Act if act not in (Act.PLAN, Act.LOOK))
"""What persons can do with a plan that there is."""


def _encode_step(step: Step, place: int, current: int, look: Look | None) -> StepShown:
    return StepShown(
        step.percent_bp / 100,
        step.min_time_s,
        step.min_viewers,
        step.approval,
        state="passed" if place < current else "current" if place == current else "ahead",
        exposed=None if look is None else look.exposed,
        control=None if look is None else look.control,
    )


def encode_look(look: Look) -> LookShown:
    return LookShown(
        at=from_ms(look.at_ms),
        step=look.step + 1,
        exposed=look.exposed,
        control=look.control,
        verdicts=[_encode_verdict(verdict) for verdict in look.verdicts],
        mismatch=None if look.mismatch is None else _encode_mismatch(look.mismatch),
    )


def _encode_verdict(verdict: Verdict) -> VerdictShown:
    guardrail = verdict.guardrail
    return VerdictShown(
        metric=guardrail.metric,
        direction=guardrail.direction,
        bound=guardrail.bound,
        on_breach=guardrail.on_breach,
        finding=verdict.finding,
        estimate=verdict.estimate,
        low=verdict.low,
        high=verdict.high,
        words=verdict.words,
    )


def _encode_mismatch(mismatch: Mismatch) -> MismatchShown:
    return MismatchShown(found=mismatch.found, p_value=mismatch.p_value, words=mismatch.words)


def encode_moved(moved: Moved) -> MoveShown:
    return MoveShown(
        id=moved.id,
        at=moved.at,
        act=moved.act,
        by=moved.by,
        status=moved.status,
        step=moved.step + 1,
        percent=moved.percent_bp / 100,
        reason=moved.reason,
        seen=None if moved.seen is None else encode_look(moved.seen),
    )
