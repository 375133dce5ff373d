"""`adserve ramp`: shows plans of staged ramps, makes them and moves them; and stops all ads at once."""

import argparse
import asyncio
import getpass
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from adserve.api.ramp_shapes import (
    MoveShown,
    PlanBody,
    RampShown,
    Reason,
    decode_plan,
    encode_moved,
    encode_ramp,
)
from adserve.bootstrap.server import database_server
from adserve.commands import ramp_simulate
from adserve.commands.arguments import row_id
from adserve.database import schema
from adserve.database.pools import open_pool
from adserve.database.refusal import DatabaseRefused
from adserve.domain.ramps import Act, Finding
from adserve.domain.time import SECOND_MS
from adserve.settings import Settings
from adserve.store import ramps, rollouts
from adserve.store.errors import StoreError
from adserve.web.bodies import BodyDecoder
from adserve.web.problems import Problem

ACTS = {
    "pause": (Act.PAUSE, "keep a plan at its percent until a person resumes it"),
    "resume": (Act.RESUME, "let a plan that is paused or held go on; its step begins anew"),
    "advance": (Act.ADVANCE, "take a plan's next step now"),
    "approve": (Act.APPROVE, "let a plan take the step that needs approval"),
    "rollback": (Act.ROLL_BACK, "return to a plan's last good percent, and end it"),
    "abort": (Act.ABORT, "end a plan, and leave the percents as they are"),
}
SWITCHING = frozenset({"pause", "resume"})
"""What can be done with all ads as well, whatever is planned."""
HISTORY_MAX = 1_000
PLANS_MAX = 500


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True)
    status = actions.add_parser("status", help="where the active plans stand, or one with its history")
    status.add_argument("id", type=row_id, nargs="?")
    status.add_argument(
        "--json", action="store_true", help="answer JSON: a list of plans, or one with its history"
    )
    plan = actions.add_parser("plan", help="make a plan; it starts by itself at its time")
    simulate = actions.add_parser("simulate", help="walk a plan among invented viewers before it is made")
    for taking in (plan, simulate):
        taking.add_argument(
            "plan",
            type=plan_file,
            metavar="FILE",
            help="JSON as POST /v1/ramps takes it; - is standard input",
        )
    ramp_simulate.add_arguments(simulate)
    for name, (_, summary) in ACTS.items():
        act = actions.add_parser(name, help=summary)
        whole = act.add_mutually_exclusive_group(required=True)
        whole.add_argument("id", type=row_id, nargs="?")
        if name in SWITCHING:
            whole.add_argument("--all-ads", action="store_true", help="the switch that beats every plan")
        act.add_argument("--step", type=int, help="refuse where the plan stands at another by now")
        act.add_argument("--reason", type=_reason, default="on the command line", help="for the history")


def plan_file(text: str) -> PlanBody:
    """The type of an argument that names a plan."""
    try:
        raw = sys.stdin.buffer.read() if text == "-" else Path(text).read_bytes()
        return BodyDecoder(PlanBody).decode(raw)
    except (OSError, Problem) as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _reason(text: str) -> str:
    try:
        text.encode()
        return msgspec.convert(text, Reason)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    if arguments.action in SWITCHING and arguments.all_ads and arguments.step is not None:
        _say("adserve ramp: --step is of a plan, and --all-ads of none")
        return 2
    try:
        if arguments.action == "simulate":
            return ramp_simulate.run(arguments, settings)
        return asyncio.run(_run(arguments, settings))
    except (DatabaseRefused, Problem, StoreError) as error:
        _say(f"adserve ramp: {error}")
        return 1


async def _run(arguments: argparse.Namespace, settings: Settings) -> int:
    async with database_server(settings, _say) as url:
        if settings.database_url is None:
            await schema.update(url, _say)
        pool = await open_pool(url, "adserve_operator", size=1)
        async with pool, pool.acquire() as connection:
            return await _act(arguments, settings, connection)


async def _act(arguments: argparse.Namespace, settings: Settings, connection: Any) -> int:
    now_ms, by = time.time_ns() // SECOND_MS**2, f"{_user()} on the command line"
    action = arguments.action
    if action == "status":
        await _show(arguments, connection, now_ms)
        return 0
    if action in SWITCHING and arguments.all_ads:
        return await _switch(connection, action == "pause")
    async with connection.transaction():
        if action == "plan":
            body: PlanBody = arguments.plan
            plan = decode_plan(body, settings.surfaces, now_ms)
            id_ = await ramps.create(connection, plan, by, body.reason, now_ms)
        else:
            id_ = arguments.id
            step = None if arguments.step is None else arguments.step - 1
            await ramps.act(connection, id_, ACTS[action][0], by, arguments.reason, now_ms, step)
    print(_line(await _shown(connection, id_, now_ms)))
    return 0


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # in a container it may have no name
        return f"user {os.getuid()}"


async def _switch(connection: Any, pause: bool) -> int:
    """1 where a replica did not say in time that it obeys."""
    version = await rollouts.set_paused(connection, pause)
    applied, replicas = await rollouts.obeyed(lambda: rollouts.applied(connection, version))
    print(f"all ads {'paused' if pause else 'resumed'}: {applied} of {replicas} replicas obey")
    return 0 if applied == replicas else 1


async def _show(arguments: argparse.Namespace, connection: Any, now_ms: int) -> None:
    if arguments.id is not None:
        ramp = await _shown(connection, arguments.id, now_ms)
        rows = await ramps.history(connection, ramp.id, 0, HISTORY_MAX)
        history = [encode_moved(row) for row in rows]
        told = {"ramp": ramp, "history": history}
        print(msgspec.json.encode(told).decode() if arguments.json else "\n".join(_whole(ramp, history)))
        return
    active = [
        await _shown(connection, made.ramp.id, now_ms)
        for made in await ramps.page(connection, 0, PLANS_MAX, True, None)
    ]
    if arguments.json:
        print(msgspec.json.encode(active).decode())
        return
    if await rollouts.paused(connection):
        print("all ads are paused")
    print("\n".join(map(_line, active)) or "no plan is active")


async def _shown(connection: Any, id_: int, now_ms: int) -> RampShown:
    made, looks = await ramps.one(connection, id_), await ramps.newest_looks(connection, [id_])
    return encode_ramp(made, looks[id_], now_ms, await rollouts.paused(connection))


def _line(ramp: RampShown) -> str:
    places = ",".join(ramp.countries) or "everywhere else"
    waits = f"; waits for {', '.join(ramp.waits_for)}" if ramp.waits_for else ""
    return (
        f"plan {ramp.id} for {ramp.surface} in {places}: {ramp.status.replace('_', ' ')} at step {ramp.step} of "
        f"{len(ramp.steps)}, {ramp.percent:g} %: {ramp.reason}{waits}"
    )


def _whole(ramp: RampShown, history: list[MoveShown]) -> Iterator[str]:
    yield _line(ramp)
    for number, step in enumerate(ramp.steps, 1):
        seen = "" if step.exposed is None else f", {step.exposed:,} exposed and {step.control:,} in control"
        approval = ", with approval" if step.approval else ""
        needs = f"{step.min_time_s:,} s and {step.min_viewers:,} viewers at the least"
        yield f"  step {number}: {step.percent:g} %, {needs}{approval}: {step.state}{seen}"
    if ramp.look is not None:
        for verdict in ramp.look.verdicts:
            mark = "!" if verdict.finding is Finding.BREACHED else " "
            yield f"{mark} {verdict.on_breach.replace('_', ' ')}: {verdict.words}"
        if ramp.look.mismatch is not None:
            yield f"{'!' if ramp.look.mismatch.found else ' '} {ramp.look.mismatch.words}"
    for row in history:
        yield (
            f"{row.at:%F %T} {row.by or 'the plan'}, {row.act}: {row.status.replace('_', ' ')} at {row.percent:g} %: "
            f"{row.reason}"
        )


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
