"""`adserve ramp simulate PLAN`: when the plan would have advanced or stopped among invented viewers, and why."""

import argparse
import time
from collections.abc import Iterator
from typing import Any

import msgspec
from tqdm import tqdm

from adserve.api.ramp_shapes import decode_plan
from adserve.commands.arguments import positive
from adserve.domain.ramps import ENDED, Metric, Plan
from adserve.domain.time import HOUR_MS, MINUTE_MS, SECOND_MS, from_ms
from adserve.rollout.ramps import percent_bp_of, waits_for
from adserve.settings import Settings
from adserve.simulation.audience import BASE, VIEWERS_MAX, Audience
from adserve.simulation.ramps import DAYS_MAX, Minute, exposed_ms, least_ms, on_schedule_ms, walked

VIEWERS = 100_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The plan itself is an argument of `adserve ramp`'s."""
    rates = ", ".join(f"{metric} {rate:g}" for metric, rate in BASE.items())
    parser.description = (
        "Walks the plan minute by minute, as the service would, among viewers who come and go, a few of them often, for "
        f"{DAYS_MAX} days at the most. Who approves steps does so at once. Without an effect, exposed viewers have: {rates}."
    )
    parser.add_argument(
        "--effect",
        type=_effect,
        action="append",
        default=[],
        metavar="METRIC=CHANGE",
        help="what ads do to those who see them, relative, as in session_seconds=-0.04; may be repeated",
    )
    parser.add_argument(
        "--viewers", type=_viewers, default=VIEWERS, help=f"how many there are in all (default: {VIEWERS})"
    )
    parser.add_argument("--seed", type=_seed, default=0, help="what chance is drawn from (default: 0)")
    parser.add_argument("--json", action="store_true", help="answer one JSON object")


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    now_ms = time.time_ns() // SECOND_MS**2
    plan = decode_plan(arguments.plan, settings.surfaces, now_ms)
    start_ms = plan.starts_at_ms - plan.starts_at_ms % MINUTE_MS
    plan = msgspec.structs.replace(plan, starts_at_ms=start_ms)
    audience = Audience(arguments.viewers, dict(arguments.effect), arguments.seed)
    minutes = walked(plan, audience, start_ms)
    last = next(minutes)
    turns = [last] if last.moved else []
    with tqdm(total=least_ms(plan) // MINUTE_MS, desc="walking", unit="min", disable=None) as bar:
        for last in minutes:
            bar.update()
            if last.moved:
                turns.append(last)
    told = _told(plan, turns, last)
    print(msgspec.json.encode(told).decode() if arguments.json else "\n".join(_lines(told)))
    return 0


def _told(plan: Plan, turns: list[Minute], last: Minute) -> dict[str, Any]:
    ramp, look = last.ramp, last.look
    until_ms = turns[0].at_ms + least_ms(plan)
    waits = waits_for(ramp, look.verdicts if look else (), look.exposed if look else 0, last.at_ms)
    return {
        "moves": [
            {
                "at": from_ms(turn.at_ms),
                "status": turn.ramp.status,
                "step": turn.ramp.step + 1,
                "percent": percent_bp_of(turn.ramp) / 100,
                "reason": turn.ramp.reason,
            }
            for turn in turns
        ],
        "status": ramp.status,
        "hours": round((last.at_ms - turns[0].at_ms) / HOUR_MS, 2),
        "waits_for": [] if ramp.status in ENDED else waits,
        "verdicts": [
            {"finding": verdict.finding, "words": verdict.words}
            for verdict in (look.verdicts if look else ())
        ],
        "mismatch": look.mismatch.words if look and look.mismatch else None,
        "exposure_of_schedule": round(exposed_ms(turns, until_ms) / on_schedule_ms(plan), 4),
    }


def _lines(told: dict[str, Any]) -> Iterator[str]:
    for move in told["moves"]:
        status = move["status"].replace("_", " ")
        yield f"{move['at']:%F %H:%M} {status}, step {move['step']}, {move['percent']:g} %: {move['reason']}"
    yield ""
    if told["waits_for"]:
        status = told["status"].replace("_", " ")
        yield f"{status} after {told['hours']:,} h: waits for {', '.join(told['waits_for'])}"
    for verdict in told["verdicts"]:
        yield f"{verdict['finding'].replace('_', ' '):>8}  {verdict['words']}"
    if told["mismatch"]:
        yield f"{'arms':>8}  {told['mismatch']}"
    yield (
        f"viewers were exposed {told['exposure_of_schedule']:.1%} of the time that the plan's schedule alone would have exposed "
        "them for"
    )


def _effect(text: str) -> tuple[Metric, float]:
    name, _, change = text.partition("=")
    try:
        metric, by = Metric(name), float(change)
    except ValueError:
        names = ", ".join(Metric)
        raise argparse.ArgumentTypeError(f"{text!r} is not like session_seconds=-0.04, of {names}") from None
    if not -1 <= by <= 1_000:
        raise argparse.ArgumentTypeError(f"{text!r}: a change is between -1 and 1000")
    return metric, by


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 0")
    return int(text)


def _viewers(text: str) -> int:
    viewers = positive(text)
    if viewers > VIEWERS_MAX:
        raise argparse.ArgumentTypeError(f"{viewers:,} is more than {VIEWERS_MAX:,}")
    return viewers
