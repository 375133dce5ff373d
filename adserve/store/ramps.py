"""Plans of staged ramps: where each stands, every move, every look. A plan's state changes in one transaction with the percents."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from adserve.domain.ramps import Act, Look, Plan, Ramp, Status
from adserve.domain.rollouts import SurfaceRollout
from adserve.domain.time import from_ms, to_ms
from adserve.rollout.ramps import BEFORE_FIRST, Move, acted, begins_below, moved, percent_bp_of, planned, walk
from adserve.store import rollouts
from adserve.store.desk import Connection
from adserve.store.errors import Contradiction, Missing
from adserve.store.statements import load

SQL = load("ramps")

CHANNEL = "adserve_ramps"
"""Notified when a person has acted: the plan is looked at at once."""

TURN_SILENCE = "5s"


class Made(NamedTuple):
    """A plan, where it stands, and who made it when."""

    ramp: Ramp
    made_by: str
    made_at: datetime


class Moved(NamedTuple):
    """A row of the history. `by` is the key's name; None where the plan moved by itself."""

    id: int
    at: datetime
    act: Act
    by: str | None
    status: Status
    step: int
    percent_bp: int
    reason: str
    seen: Look | None


async def create(connection: Connection, plan: Plan, by: str, reason: str, now_ms: int) -> int:
    """The new plan's id. From now on its places are its own; a country that went by its surface's percent gets one of its own.

    Raises Contradiction where another plan holds one of the places, or where they cannot be walked from where they stand.
    """
    await rollouts.lock(connection)
    holder = await connection.fetchval(SQL.holder, plan.surface, list(plan.countries) or [""])
    if holder is not None:
        raise Contradiction(f"Plan {holder} holds a place of this one: end it first (/v1/ramps/{holder}).")
    now = (await rollouts.read(connection)).get(plan.surface, rollouts.NOBODY)
    percent_bp = _percent_bp(plan, now)
    if not begins_below(plan, percent_bp):
        first_bp = plan.steps[0].percent_bp
        raise Contradiction(
            f"The plan begins at {first_bp / 100:g} %, where {percent_bp / 100:g} % see ads already."
        )
    await rollouts.set_percent(connection, plan.surface, plan.countries, percent_bp)
    ramp = planned(0, plan, percent_bp)
    row = plan.surface, list(plan.countries), msgspec.to_builtins(plan), by, from_ms(now_ms), *_standing(ramp)
    id_: int = await connection.fetchval(SQL.add, *row)
    await _note(connection, msgspec.structs.replace(ramp, id=id_, reason=reason), Act.PLAN, by, None, now_ms)
    await connection.execute(SQL.wake)
    return id_


async def one(connection: Connection, id_: int) -> Made:
    return _made(_found(await connection.fetchrow(SQL.one, id_), id_))


async def page(
    connection: Connection, after: int, limit: int, active: bool | None, surface: str | None
) -> list[Made]:
    """By id, beyond `after`."""
    return [_made(row) for row in await connection.fetch(SQL.page, after, limit, active, surface)]


async def history(connection: Connection, id_: int, after: int, limit: int) -> list[Moved]:
    """Oldest first, beyond `after`."""
    return [_moved(row) for row in await connection.fetch(SQL.history, id_, after, limit)]


async def newest_looks(connection: Connection, ids: Sequence[int]) -> dict[int, dict[int, Look]]:
    """By plan and by step."""
    found: dict[int, dict[int, Look]] = {id_: {} for id_ in ids}
    for id_, raw in await connection.fetch(SQL.newest_looks, ids):
        look = msgspec.convert(raw, Look)
        found[id_][look.step] = look
    return found


async def looks(connection: Connection, id_: int, step: int | None, points: int) -> list[Look]:
    """Oldest first, thinned out to the newest of each of `points` equal parts of the time that they span."""
    rows = await connection.fetch(SQL.looks, id_, step, points)
    return [msgspec.convert(row["look"], Look) for row in rows]


async def forget_looks(connection: Connection, before_ms: int) -> None:
    """Those of before that moment; the newest of each step stays."""
    await connection.execute(SQL.forget_looks, from_ms(before_ms))


async def act(
    connection: Connection,
    id_: int,
    act_: Act,
    by: str,
    reason: str,
    now_ms: int,
    step: int | None = None,
) -> None:
    """What a person does, who may say at which step. Raises Contradiction where the plan does not allow it, or stands at another."""
    await rollouts.lock(connection)
    ramp = _ramp(_found(await connection.fetchrow(SQL.lock, id_), id_))
    if step not in (None, ramp.step):
        raise Contradiction(f"The plan has moved since: it stands at step {ramp.step + 1}.")
    move = acted(ramp, act_, reason, now_ms, await rollouts.paused(connection))
    if isinstance(move, str):
        raise Contradiction(move)
    seen = (await newest_looks(connection, [id_]))[id_].get(ramp.step)
    await _write(connection, ramp, move, act_, by, seen, now_ms)
    await connection.execute(SQL.wake)


async def take_turn(connection: Connection) -> bool:
    """Whether this process decides now. Its turn ends when the connection is given back, or after TURN_SILENCE without a word from it."""
    turn: bool = await connection.fetchval(SQL.turn, TURN_SILENCE)
    return turn


class Active(NamedTuple):
    """`due` says whether the plan has moved since it last looked at its step, or looked at a given moment or before."""

    ramp: Ramp
    due: bool


async def active(connection: Connection, looked_by_ms: int) -> list[Active]:
    rows = await connection.fetch(SQL.active, from_ms(looked_by_ms))
    return [Active(_ramp(row), row["due"]) for row in rows]


async def decide(connection: Connection, ramp: Ramp, look: Look | None, now_ms: int) -> Move | None:
    """Writes down what was seen of a plan, and moves it by that. Nothing, where it does not stand there any more. Without a look,
    what needs none is decided: a start, and that all ads are paused."""
    await rollouts.lock(connection)
    if _ramp(await connection.fetchrow(SQL.lock, ramp.id)) != ramp:
        return None
    paused = await rollouts.paused(connection)
    if look is None and ramp.step != BEFORE_FIRST and not paused:
        return None
    seen = (look.verdicts, look.mismatch, look.exposed) if look else ((), None, 0)
    move = walk(ramp, *seen, now_ms, paused)
    if look is not None:
        await connection.execute(
            SQL.add_look, ramp.id, look.step, from_ms(look.at_ms), msgspec.to_builtins(look)
        )
    if move is not None:
        await _write(connection, ramp, move, Act.LOOK, None, look, now_ms)
    return move


async def _write(
    connection: Connection, ramp: Ramp, move: Move, act_: Act, by: str | None, seen: Look | None, now_ms: int
) -> None:
    after = moved(ramp, move)
    await connection.execute(SQL.move, ramp.id, *_standing(after))
    if move.percent_bp is not None:
        plan = ramp.plan
        await rollouts.set_percent(connection, plan.surface, plan.countries, move.percent_bp)
    await _note(connection, after, act_, by, seen, now_ms)


async def _note(
    connection: Connection, after: Ramp, act_: Act, by: str | None, seen: Look | None, now_ms: int
) -> None:
    stands = after.status, after.step, percent_bp_of(after), after.reason
    figures = None if seen is None else msgspec.to_builtins(seen)
    await connection.execute(SQL.note, after.id, from_ms(now_ms), act_, by, *stands, figures)


def _percent_bp(plan: Plan, now: SurfaceRollout) -> int:
    """The one percent at which all of a plan's places stand."""
    if not plan.countries:
        return now.percent_bp
    stand = {country: now.percent_bp_for(country) for country in plan.countries}
    if len(set(stand.values())) > 1:
        named = ", ".join(f"{country} {percent_bp / 100:g} %" for country, percent_bp in stand.items())
        raise Contradiction(
            f"The countries stand at different percents ({named}): make a plan for each percent."
        )
    return stand[plan.countries[0]]


def _standing(ramp: Ramp) -> tuple[Any, ...]:
    return ramp.status, ramp.step, from_ms(ramp.step_entered_at_ms), ramp.good_bp, ramp.reason


def _found(row: Any, id_: int) -> Any:
    if row is None:
        raise Missing(f"ramps has no {id_}")
    return row


def _made(row: Any) -> Made:
    return Made(_ramp(row), row["made_by"], row["made_at"])


def _ramp(row: Any) -> Ramp:
    return Ramp(
        row["id"],
        msgspec.convert(row["plan"], Plan),
        Status(row["status"]),
        row["step"],
        to_ms(row["step_entered_at"]),
        row["good_bp"],
        row["reason"],
    )


def _moved(row: Any) -> Moved:
    seen = row["seen"]
    return Moved(
        row["id"],
        row["at"],
        Act(row["act"]),
        row["by"],
        Status(row["status"]),
        row["step"],
        row["percent_bp"],
        row["reason"],
        None if seen is None else msgspec.convert(seen, Look),
    )
