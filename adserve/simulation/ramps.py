"""A plan walked under a virtual clock by what walks it in service, looked at every minute.

What is kept from one look to the next is what the service stores: where the plan stands. A look that dies before its move is
stored leaves it there.
"""

from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

from adserve.domain.ramps import ENDED, Act, Evidence, Look, Plan, Ramp, Status
from adserve.domain.time import MINUTE_MS, SECOND_MS
from adserve.rollout.guardrails import look_at
from adserve.rollout.ramps import BEFORE_FIRST, Move, acted, moved, percent_bp_of, planned, walk
from adserve.simulation.audience import Audience

DAYS_MAX = 60
"""A plan that waits for more viewers than there are would go on for ever."""


class Minute(NamedTuple):
    """`ramp` is where the plan stands at the end of it, `look` what it saw, if its step had begun before."""

    at_ms: int
    ramp: Ramp
    look: Look | None
    moved: bool


def walked(
    plan: Plan, audience: Audience, start_ms: int, dies: Collection[int] = frozenset()
) -> Iterator[Minute]:
    """Until the plan has ended, is held, or DAYS_MAX are over. Persons approve at once. In the minutes `dies`, counted from the
    start, the look dies."""
    ramp = planned(1, plan, 0)
    seen: Iterator[Evidence] = iter(())
    for number in range(DAYS_MAX * 24 * 60):
        now_ms = start_ms + number * MINUTE_MS
        begun = ramp.step != BEFORE_FIRST
        look = look_at(ramp, next(seen), now_ms) if begun else None
        move = None if number in dies else _move(ramp, look, now_ms)
        if move is not None:
            if move.step != ramp.step:
                seen = audience.step(plan.steps[move.step].percent_bp, now_ms)
            ramp = moved(ramp, move)
        yield Minute(now_ms, ramp, look, move is not None)
        if ramp.status in ENDED or ramp.status is Status.HELD:
            return


def exposed_ms(turns: Sequence[Minute], until_ms: int) -> float:
    """How long the mean viewer is exposed until then, given the minutes in which the plan moved."""
    ends = [turn.at_ms for turn in turns[1:]] + [until_ms]
    return sum(
        percent_bp_of(turn.ramp) / 10_000 * max(0, min(end, until_ms) - turn.at_ms)
        for turn, end in zip(turns, ends, strict=True)
    )


def least_ms(plan: Plan) -> int:
    """How long the plan takes where nothing stops or delays it."""
    return sum(step.min_time_s for step in plan.steps) * SECOND_MS


def on_schedule_ms(plan: Plan) -> float:
    """How long the mean viewer is exposed where nothing stops or delays the plan."""
    return sum(step.percent_bp / 10_000 * step.min_time_s for step in plan.steps) * SECOND_MS


def _move(ramp: Ramp, look: Look | None, now_ms: int) -> Move | None:
    if ramp.status is Status.AWAITING_APPROVAL:
        approved = acted(ramp, Act.APPROVE, "approved", now_ms, ads_paused=False)
        return approved if isinstance(approved, Move) else None
    verdicts, mismatch, exposed = (look.verdicts, look.mismatch, look.exposed) if look else ((), None, 0)
    return walk(ramp, verdicts, mismatch, exposed, now_ms, ads_paused=False)
