"""How a plan is walked, and what a person may do with it. All of it is pure: what was seen comes in, a move comes out.

Harm is acted on in every state in which the plan shows ads, a pause of the plan included; upwards it goes only while it runs. A
breach beats a mismatch, and the switch that pauses all ads beats both: the plan is paused with it, and no plan resumes itself.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import assert_never
from zoneinfo import ZoneInfo

from msgspec import Struct
from msgspec.structs import replace

from adserve.domain.ramps import (
    ENDED,
    OPERATIONAL,
    Act,
    Finding,
    Guardrail,
    Mismatch,
    OnBreach,
    Plan,
    Ramp,
    Status,
    Verdict,
)
from adserve.domain.time import HOUR_MS, MINUTE_MS, SECOND_MS, from_ms

BEFORE_FIRST = -1


class Move(Struct, frozen=True, kw_only=True):
    """Where the plan stands after it. Its places get `percent_bp`, unless that is None."""

    status: Status
    step: int
    step_entered_at_ms: int
    good_bp: int
    reason: str
    percent_bp: int | None = None


def planned(id_: int, plan: Plan, percent_bp: int) -> Ramp:
    """A new plan for places that stand at `percent_bp`."""
    return Ramp(id_, plan, Status.SCHEDULED, BEFORE_FIRST, 0, percent_bp, "waits for its start")


def moved(ramp: Ramp, move: Move) -> Ramp:
    return Ramp(
        ramp.id, ramp.plan, move.status, move.step, move.step_entered_at_ms, move.good_bp, move.reason
    )


def percent_bp_of(ramp: Ramp) -> int:
    """Where the plan's places stand."""
    if ramp.step == BEFORE_FIRST or ramp.status is Status.ROLLED_BACK:
        return ramp.good_bp
    return ramp.plan.steps[ramp.step].percent_bp


def rises(plan: Plan) -> bool:
    """Nobody may lose ads on the way up."""
    percents = [step.percent_bp for step in plan.steps]
    return all(before < after for before, after in pairwise(percents))


def begins_below(plan: Plan, percent_bp: int) -> bool:
    """Whether places that stand at `percent_bp` can be walked by the plan."""
    return percent_bp <= plan.steps[0].percent_bp


def walk(
    ramp: Ramp,
    verdicts: Sequence[Verdict],
    mismatch: Mismatch | None,
    exposed_viewers: int,
    now_ms: int,
    ads_paused: bool,
) -> Move | None:
    """The plan's own next move, given what its current step has seen."""
    if ramp.status in ENDED:
        return None
    if ads_paused:
        return _paused_with_ads(ramp)
    harm = _breached(verdicts, OnBreach.ROLL_BACK)
    if harm and ramp.step != BEFORE_FIRST:
        return _rolled_back(ramp, _words(harm))
    match ramp.status:
        case Status.SCHEDULED:
            due = now_ms >= ramp.plan.starts_at_ms and in_hours(ramp.plan, now_ms)
            return _onwards(ramp, "the plan starts", now_ms) if due else None
        case Status.RUNNING | Status.AWAITING_APPROVAL:
            return _watched(ramp, verdicts, mismatch, exposed_viewers, now_ms)
        case Status.HELD | Status.PAUSED | Status.COMPLETED | Status.ROLLED_BACK | Status.ABORTED:
            return None
        case _:
            assert_never(ramp.status)


_ACTIVE = frozenset(Status) - ENDED
_CAN: Mapping[Act, frozenset[Status]] = {
    Act.PAUSE: _ACTIVE - {Status.PAUSED},
    Act.RESUME: frozenset({Status.PAUSED, Status.HELD}),
    Act.ADVANCE: frozenset({Status.RUNNING, Status.SCHEDULED}),
    Act.APPROVE: frozenset({Status.AWAITING_APPROVAL}),
    Act.ROLL_BACK: _ACTIVE,
    Act.ABORT: _ACTIVE,
}
"""What a person can do, and with a plan that is what."""
_UPWARDS = frozenset({Act.RESUME, Act.ADVANCE, Act.APPROVE})


def refusal(ramp: Ramp, act: Act, ads_paused: bool) -> str | None:
    """Why a person cannot do this with the plan."""
    if ramp.status in ENDED:
        return f"The plan has ended: it is {_named(ramp.status)}."
    if ramp.status not in _CAN[act]:
        wanted = " or ".join(sorted(map(_named, _CAN[act])))
        return f"The plan is {_named(ramp.status)}; to {_named(act)}, it has to be {wanted}."
    if ads_paused and act in _UPWARDS:
        return "All ads are paused: resume them before the plan."
    return None


def acted(ramp: Ramp, act: Act, reason: str, now_ms: int, ads_paused: bool) -> Move | str:
    """What a person's act makes of the plan, for a reason; or why that cannot be done. Hours bind the plan alone: who acts is
    there to watch."""
    why_not = refusal(ramp, act, ads_paused)
    if why_not is not None:
        return why_not
    match act:
        case Act.RESUME:
            move = _resumed(ramp, reason, now_ms)
        case Act.ADVANCE:
            move = _onwards(ramp, reason, now_ms)
        case Act.APPROVE:
            move = _entered(ramp, reason, now_ms)
        case Act.ROLL_BACK:
            move = _rolled_back(ramp, reason)
        case _:
            status = Status.PAUSED if act is Act.PAUSE else Status.ABORTED
            move = _in_place(ramp, status, reason)
    return move


def _resumed(ramp: Ramp, reason: str, now_ms: int) -> Move:
    """The step begins anew, with its time and with what it has seen: ads may have been away meanwhile."""
    status = Status.SCHEDULED if ramp.step == BEFORE_FIRST else Status.RUNNING
    return replace(_in_place(ramp, status, reason), step_entered_at_ms=now_ms)


def _named(state: Status | Act) -> str:
    return state.replace("_", " ").replace("-", " ")


def _watched(
    ramp: Ramp, verdicts: Sequence[Verdict], mismatch: Mismatch | None, exposed_viewers: int, now_ms: int
) -> Move | None:
    if mismatch is not None and mismatch.found:
        return _in_place(ramp, Status.HELD, mismatch.words)
    if doubt := _breached(verdicts, OnBreach.HOLD):
        return _in_place(ramp, Status.HELD, _words(doubt))
    if ramp.status is Status.AWAITING_APPROVAL or waits_for(ramp, verdicts, exposed_viewers, now_ms):
        return None
    lasted = _lasted(now_ms - ramp.step_entered_at_ms)
    return _onwards(ramp, f"the step was kept for {lasted}, {exposed_viewers:,} viewers were exposed", now_ms)


def _lasted(duration_ms: int) -> str:
    if duration_ms < 2 * MINUTE_MS:
        return f"{duration_ms / SECOND_MS:.0f} s"
    return f"{duration_ms / MINUTE_MS:.0f} min" if duration_ms < HOUR_MS else f"{duration_ms / HOUR_MS:.1f} h"


def waits_for(ramp: Ramp, verdicts: Sequence[Verdict], exposed_viewers: int, now_ms: int) -> list[str]:
    """What keeps a plan from its next step, in words. Nobody more gets ads while a guardrail that could stop it says nothing of as many
    viewers as it asks for: then their outcomes do not come."""
    plan = ramp.plan
    if ramp.status is Status.SCHEDULED:
        start = from_ms(plan.starts_at_ms)
        reasons = [f"its start at {start:%F %H:%M} UTC"] if now_ms < plan.starts_at_ms else []
        return reasons + _waits_for_hours(plan, now_ms)
    if ramp.status is not Status.RUNNING:
        return [] if ramp.status in ENDED else ["a person"]
    step, reasons = plan.steps[ramp.step], []
    left_s = step.min_time_s - (now_ms - ramp.step_entered_at_ms) // SECOND_MS
    if left_s > 0:
        reasons.append(f"{left_s:,} s of the step's {step.min_time_s:,} s")
    if exposed_viewers < step.min_viewers:
        reasons.append(f"{step.min_viewers - exposed_viewers:,} of {step.min_viewers:,} viewers")
    if ramp.step == len(plan.steps) - 1:
        return reasons
    silent = [
        verdict.guardrail.metric
        for verdict in verdicts
        if verdict.finding is Finding.NO_DATA and _needed(verdict.guardrail, exposed_viewers)
    ]
    return reasons + [f"data on {metric}" for metric in silent] + _waits_for_hours(plan, now_ms)


def _needed(guardrail: Guardrail, exposed_viewers: int) -> bool:
    """Operational figures are of the last minutes, in which there may have been none."""
    banded = guardrail.metric not in OPERATIONAL and guardrail.on_breach is not OnBreach.WARN
    return banded and exposed_viewers >= guardrail.min_viewers


def _waits_for_hours(plan: Plan, now_ms: int) -> list[str]:
    hours = ", ".join(map(str, sorted(plan.hours)))
    return [] if in_hours(plan, now_ms) else [f"one of the hours {hours} in {plan.time_zone}"]


def in_hours(plan: Plan, now_ms: int) -> bool:
    """Whether the plan may advance now, on the clocks of its own time zone."""
    return not plan.hours or from_ms(now_ms).astimezone(ZoneInfo(plan.time_zone)).hour in plan.hours


def _onwards(ramp: Ramp, why: str, now_ms: int) -> Move:
    """To the next step, to a person who approves it, or to the plan's end."""
    following = ramp.step + 1
    if following == len(ramp.plan.steps):
        return _in_place(ramp, Status.COMPLETED, f"{why}; that was the last step")
    if ramp.plan.steps[following].approval:
        return _in_place(ramp, Status.AWAITING_APPROVAL, f"{why}; step {following + 1} needs approval")
    return _entered(ramp, why, now_ms)


def _entered(ramp: Ramp, why: str, now_ms: int) -> Move:
    """The percent that is left was good: a roll-back returns to it."""
    following = ramp.step + 1
    step = ramp.plan.steps[following]
    return Move(
        status=Status.RUNNING,
        step=following,
        step_entered_at_ms=now_ms,
        good_bp=percent_bp_of(ramp),
        reason=f"{why}; step {following + 1} of {len(ramp.plan.steps)} at {step.percent_bp / 100:g} %",
        percent_bp=step.percent_bp,
    )


def _in_place(ramp: Ramp, status: Status, reason: str) -> Move:
    return Move(
        status=status,
        step=ramp.step,
        step_entered_at_ms=ramp.step_entered_at_ms,
        good_bp=ramp.good_bp,
        reason=reason,
    )


def _rolled_back(ramp: Ramp, why: str) -> Move:
    move = _in_place(ramp, Status.ROLLED_BACK, f"{why}; back to {ramp.good_bp / 100:g} %")
    return replace(move, percent_bp=ramp.good_bp)


def _paused_with_ads(ramp: Ramp) -> Move | None:
    """What a step would see meanwhile says nothing of ads."""
    if ramp.step == BEFORE_FIRST or ramp.status is Status.PAUSED:
        return None
    return _in_place(ramp, Status.PAUSED, "all ads are paused; a person has to resume the plan as well")


def _breached(verdicts: Sequence[Verdict], on_breach: OnBreach) -> list[Verdict]:
    return [
        verdict
        for verdict in verdicts
        if verdict.finding is Finding.BREACHED and verdict.guardrail.on_breach is on_breach
    ]


def _words(verdicts: Sequence[Verdict]) -> str:
    return "; ".join(verdict.words for verdict in verdicts)
