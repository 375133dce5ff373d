"""A plan's walk and persons' acts, as pure values: up only while it runs and everything allows it, down at any harm."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from adserve.domain.ramps import (
    ENDED,
    Act,
    Direction,
    Finding,
    Guardrail,
    Metric,
    Mismatch,
    OnBreach,
    Plan,
    Ramp,
    Status,
    Step,
    Verdict,
)
from adserve.domain.time import HOUR_MS, MINUTE_MS, SECOND_MS
from adserve.rollout.ramps import Move, acted, in_hours, moved, percent_bp_of, planned, rises, waits_for, walk

NOW_MS = 1_767_225_600_000  # 2026-01-01T00:00:00Z
STEPS = (Step(1, 60, 10), Step(100, 120), Step(2_500, 60, approval=True), Step(10_000, 60))
PLAN = Plan("status", STEPS, ())
FINE = Mismatch(False, 0.7, "as asked for")
SKEWED = Mismatch(True, 1e-6, "far more are exposed than asked for")


def verdict(finding: Finding, on_breach: OnBreach = OnBreach.ROLL_BACK) -> Verdict:
    guardrail = Guardrail(Metric.SESSION_SECONDS, Direction.FALLS, 0.02, on_breach)
    return Verdict(guardrail, finding, -0.06, -0.08, -0.04, f"sessions: {finding}")


HARM = [verdict(Finding.BREACHED)]
DOUBT = [verdict(Finding.BREACHED, OnBreach.HOLD)]
WARNING = [verdict(Finding.BREACHED, OnBreach.WARN)]


def at(step: int, status: Status = Status.RUNNING, plan: Plan = PLAN) -> Ramp:
    good_bp = 0 if step < 1 else plan.steps[step - 1].percent_bp
    return Ramp(1, plan, status, step, NOW_MS, good_bp, "")


def seen(
    ramp: Ramp,
    verdicts: Sequence[Verdict] = (),
    mismatch: Mismatch | None = FINE,
    viewers: int = 10,
    after_s: int = 120,
    paused: bool = False,
) -> Move | None:
    return walk(ramp, verdicts, mismatch, viewers, NOW_MS + after_s * SECOND_MS, paused)


def leads(move: Move | None) -> tuple[Status, int, int | None] | None:
    return None if move is None else (move.status, move.step, move.percent_bp)


def test_a_plan_starts_at_its_time() -> None:
    ramp = planned(1, replace(PLAN, starts_at_ms=NOW_MS + 60_000), 0)
    assert seen(ramp, after_s=59) is None
    assert waits_for(ramp, (), 0, NOW_MS) == ["its start at 2026-01-01 00:01 UTC"]
    move = seen(ramp, after_s=60)
    assert leads(move) == (Status.RUNNING, 0, 1)
    assert move is not None
    assert move.step_entered_at_ms == NOW_MS + 60_000
    assert move.reason == "the plan starts; step 1 of 4 at 0.01 %"


def test_a_step_is_left_when_its_time_is_over_and_its_viewers_were_seen() -> None:
    assert seen(at(0), after_s=59) is None
    assert seen(at(0), viewers=9) is None
    assert leads(seen(at(0), after_s=60)) == (Status.RUNNING, 1, 100)
    assert waits_for(at(0), (), 3, NOW_MS + 59_999) == ["1 s of the step's 60 s", "7 of 10 viewers"]


def test_it_takes_one_step_at_a_time_however_late_it_looks() -> None:
    move = seen(at(0), after_s=86_400)
    assert move is not None
    assert move.step == 1
    assert walk(moved(at(0), move), (), FINE, 10**6, NOW_MS + 86_400 * SECOND_MS, False) is None


def test_the_last_step_completes_the_plan_and_changes_no_percent() -> None:
    assert leads(seen(at(3))) == (Status.COMPLETED, 3, None)


def test_a_step_that_needs_approval_waits_for_a_person() -> None:
    move = seen(at(1))
    assert leads(move) == (Status.AWAITING_APPROVAL, 1, None)
    assert move is not None
    waiting = moved(at(1), move)
    assert seen(waiting, after_s=86_400) is None
    approved = acted(waiting, Act.APPROVE, "reviewed", NOW_MS, False)
    assert isinstance(approved, Move)
    assert leads(approved) == (Status.RUNNING, 2, 2_500)
    assert percent_bp_of(moved(waiting, approved)) == 2_500


def test_it_advances_in_its_hours_alone_on_its_own_clocks() -> None:
    plan = replace(PLAN, hours=(9, 10), time_zone="Asia/Jakarta")  # seven hours ahead
    ramp = at(0, plan=plan)
    assert seen(ramp, after_s=2 * 3_600 - 1) is None
    assert leads(seen(ramp, after_s=2 * 3_600)) == (Status.RUNNING, 1, 100)
    assert seen(ramp, after_s=4 * 3_600) is None
    assert waits_for(ramp, (), 10, NOW_MS + HOUR_MS) == ["one of the hours 9, 10 in Asia/Jakarta"]
    assert leads(seen(ramp, HARM, after_s=1)) == (Status.ROLLED_BACK, 0, 0), "harm waits for no hour"


def test_hours_follow_the_clocks_of_summer() -> None:
    """2026-07-01 07:30 UTC is 09:30 in Berlin, 2026-01-01 07:30 is 08:30."""
    plan = replace(PLAN, hours=(9,), time_zone="Europe/Berlin")
    assert in_hours(plan, 1_782_891_000_000)
    assert not in_hours(plan, NOW_MS + 7 * HOUR_MS + 30 * MINUTE_MS)


@pytest.mark.parametrize("status", [Status.RUNNING, Status.HELD, Status.AWAITING_APPROVAL, Status.PAUSED])
def test_harm_returns_to_the_last_good_percent_whatever_the_plan_waits_for(status: Status) -> None:
    move = seen(at(2, status), HARM, SKEWED)
    assert leads(move) == (Status.ROLLED_BACK, 2, 100)
    assert move is not None
    assert move.reason == "sessions: breached; back to 1 %"
    assert percent_bp_of(moved(at(2, status), move)) == 100


def test_from_the_first_step_it_returns_to_where_the_place_stood() -> None:
    start = seen(planned(1, PLAN, 1))
    assert start is not None
    first = moved(planned(1, PLAN, 1), start)
    assert leads(seen(first, HARM)) == (Status.ROLLED_BACK, 0, 1)


@pytest.mark.parametrize(("verdicts", "mismatch"), [(DOUBT, FINE), ((), SKEWED)])
def test_doubt_holds_the_plan_until_a_person_has_looked(verdicts: list[Verdict], mismatch: Mismatch) -> None:
    move = seen(at(1), verdicts, mismatch)
    assert leads(move) == (Status.HELD, 1, None)
    assert move is not None
    held = moved(at(1), move)
    assert seen(held, after_s=86_400) is None
    resumed = acted(held, Act.RESUME, "mended", NOW_MS + HOUR_MS, False)
    assert isinstance(resumed, Move)
    assert (leads(resumed), resumed.step_entered_at_ms) == ((Status.RUNNING, 1, None), NOW_MS + HOUR_MS)


def test_a_warning_stops_nothing() -> None:
    assert leads(seen(at(0), WARNING)) == (Status.RUNNING, 1, 100)


def test_a_step_up_needs_the_outcomes_of_as_many_viewers_as_a_guardrail_asks_for() -> None:
    unknown = [verdict(Finding.NO_DATA)]
    assert seen(at(0), unknown, viewers=100) is None
    assert waits_for(at(0), unknown, 100, NOW_MS + HOUR_MS) == ["data on session_seconds"]
    assert seen(at(0), unknown, viewers=99) is not None, "a step may be too small to be judged"
    assert seen(at(0), [verdict(Finding.NO_DATA, OnBreach.WARN)], viewers=100) is not None
    assert seen(at(0), [verdict(Finding.OPEN)], viewers=100) is not None
    errors = replace(unknown[0], guardrail=Guardrail(Metric.ERRORS, Direction.RISES, 0.02))
    assert seen(at(0), [errors], viewers=100) is not None, "it is of the last minutes"
    assert leads(seen(at(3), unknown, viewers=100)) == (Status.COMPLETED, 3, None), "nobody gets ads by it"


@pytest.mark.parametrize("status", [Status.RUNNING, Status.HELD, Status.AWAITING_APPROVAL])
def test_with_all_ads_paused_the_plan_is_paused_and_stays_so(status: Status) -> None:
    move = seen(at(1, status), HARM, paused=True)
    assert leads(move) == (Status.PAUSED, 1, None)
    assert move is not None
    paused = moved(at(1, status), move)
    assert seen(paused, after_s=86_400) is None
    for act in (Act.RESUME, Act.ADVANCE, Act.APPROVE):
        assert isinstance(acted(paused, act, "on", NOW_MS, True), str)
    assert isinstance(acted(paused, Act.RESUME, "on", NOW_MS, False), Move)


def test_with_all_ads_paused_no_plan_starts() -> None:
    assert seen(planned(1, PLAN, 0), paused=True) is None


ALLOWED = {
    Act.PAUSE: {Status.SCHEDULED, Status.RUNNING, Status.HELD, Status.AWAITING_APPROVAL},
    Act.RESUME: {Status.PAUSED, Status.HELD},
    Act.ADVANCE: {Status.RUNNING, Status.SCHEDULED},
    Act.APPROVE: {Status.AWAITING_APPROVAL},
    Act.ROLL_BACK: set(Status) - ENDED,
    Act.ABORT: set(Status) - ENDED,
}


@pytest.mark.parametrize("status", Status)
@pytest.mark.parametrize("act", ALLOWED)
def test_what_a_person_can_do(act: Act, status: Status) -> None:
    ramp = at(-1 if status is Status.SCHEDULED else 1, status)
    done = acted(ramp, act, "because", NOW_MS, False)
    assert isinstance(done, Move) is (status in ALLOWED[act]), done
    if isinstance(done, str):
        assert status.replace("_", " ") in done


def test_what_a_person_has_paused_before_its_start_is_scheduled_again() -> None:
    ramp = planned(1, PLAN, 0)
    for act, status in ((Act.PAUSE, Status.PAUSED), (Act.RESUME, Status.SCHEDULED)):
        move = acted(ramp, act, "because", NOW_MS, False)
        assert isinstance(move, Move)
        ramp = moved(ramp, move)
        assert ramp.status is status


def test_a_person_needs_no_hour_to_advance_but_approval_where_it_is_needed() -> None:
    plan = replace(PLAN, hours=(9,))
    assert not in_hours(plan, NOW_MS)
    early = acted(at(0, plan=plan), Act.ADVANCE, "seen enough", NOW_MS, False)
    assert isinstance(early, Move)
    assert (leads(early), early.good_bp) == ((Status.RUNNING, 1, 100), 1)
    waiting = acted(at(1, plan=plan), Act.ADVANCE, "seen enough", NOW_MS, False)
    assert isinstance(waiting, Move)
    assert leads(waiting) == (Status.AWAITING_APPROVAL, 1, None)


def test_an_abort_leaves_the_percents_and_a_roll_back_takes_one_step_back() -> None:
    for act, expected in (
        (Act.ABORT, (Status.ABORTED, 1, None)),
        (Act.ROLL_BACK, (Status.ROLLED_BACK, 1, 1)),
    ):
        move = acted(at(1), act, "because", NOW_MS, False)
        assert isinstance(move, Move)
        assert leads(move) == expected


def test_steps_rise() -> None:
    assert rises(PLAN)
    assert not rises(replace(PLAN, steps=(Step(5, 1), Step(5, 1))))


Walk = Callable[..., Move | None]
events = st.lists(
    st.one_of(
        st.sampled_from(list(ALLOWED)),
        st.builds(
            dict,
            verdicts=st.lists(
                st.builds(verdict, st.sampled_from(Finding), st.sampled_from(OnBreach)), max_size=2
            ),
            mismatch=st.sampled_from([FINE, SKEWED, None]),
            viewers=st.integers(0, 20),
            after_s=st.integers(0, 200),
            paused=st.booleans(),
        ),
    ),
    max_size=30,
)


def faults(happens: list[Any], walking: Walk) -> list[str]:
    """What must never come of any sequence of looks and acts."""
    ramp, now_ms, stood = planned(1, PLAN, 0), NOW_MS, [0]
    found = []
    for event in happens:
        before = ramp
        if isinstance(event, Act):
            answer = acted(ramp, event, "because", now_ms, False)
            move = None if isinstance(answer, str) else answer
        else:
            now_ms += event["after_s"] * SECOND_MS
            looked = event["verdicts"], event["mismatch"], event["viewers"]
            move = walking(ramp, *looked, now_ms, event["paused"])
        if move is None:
            continue
        ramp = moved(ramp, move)
        rose = percent_bp_of(ramp) > percent_bp_of(before)
        if before.status in ENDED:
            found.append("an ended plan moved")
        if (
            not isinstance(event, Act)
            and before.status is Status.PAUSED
            and ramp.status
            not in (
                Status.PAUSED,
                Status.ROLLED_BACK,
            )
        ):
            found.append("a plan resumed itself")
        if rose and (not isinstance(event, Act)) and (event["paused"] or before.status is Status.HELD):
            found.append("it went up where it must not")
        if percent_bp_of(ramp) < percent_bp_of(before) and ramp.status is not Status.ROLLED_BACK:
            found.append("viewers lost ads without a roll-back")
        if ramp.status is Status.ROLLED_BACK and percent_bp_of(ramp) not in stood:
            found.append("a roll-back went where the plan never stood")
        if (move.percent_bp is not None) and move.percent_bp != percent_bp_of(ramp):
            found.append("the percents are not the plan's")
        stood.append(percent_bp_of(ramp))
    return found


@given(events)
@settings(derandomize=True, max_examples=300)
def test_whatever_happens(happens: list[Any]) -> None:
    assert faults(happens, walk) == []


def test_control_a_walk_that_resumes_what_a_person_paused_is_found() -> None:
    def eager(ramp: Ramp, *seen: Any) -> Move | None:
        return walk(replace(ramp, status=Status.RUNNING) if ramp.status is Status.PAUSED else ramp, *seen)

    look = {"verdicts": [], "mismatch": FINE, "viewers": 20, "after_s": 200, "paused": False}
    happens = [look, Act.PAUSE, look]
    assert faults(happens, walk) == []
    assert faults(happens, eager) == ["a plan resumed itself"]
