"""`make bench`: how fast the real service is, beside what nothing of its kind could exceed."""

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import uvloop

from adserve import settings
from adserve.commands.scratch import scratch
from adserve.database.refusal import DatabaseRefused
from adserve.simulation.seed import SeedError
from loadtest import events, market, slots
from loadtest.figures import Plan
from loadtest.generator import LoadError
from loadtest.planting import plant
from loadtest.processes import NotServing, cores, serving
from loadtest.report import as_json, as_table
from loadtest.servers import Wanted

RESULTS = Path(__file__).parent / "results" / "latest.json"
REFUSALS = (DatabaseRefused, LoadError, LookupError, NotServing, OSError, SeedError, settings.SettingsError)

LEASED_S = 2.5
"""How long a new campaign may wait for its first lease."""


def main(words: Sequence[str] | None = None) -> int:
    """0 when everything was measured, 1 when it could not be, 130 when it was stopped."""
    try:
        given = _arguments(words)
        figures, table = uvloop.run(_measure(_plan(given)))
    except REFUSALS as error:
        _say(f"loadtest: {error}")
        return 1
    except KeyboardInterrupt:
        return 130
    given.results.parent.mkdir(exist_ok=True)
    given.results.write_bytes(orjson.dumps(figures, option=orjson.OPT_INDENT_2))
    print(table)  # noqa: T201 - the result
    return 0


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m loadtest",
        description="Measures slots/s and events/s of the service on one core, driven from another, beside a bare "
        "aiohttp handler and a plain insert, in turns; prints the medians of all rounds.",
    )
    parser.add_argument(
        "--campaigns", type=_positive, default=200, help="campaigns, an ad each (default: 200)"
    )
    parser.add_argument(
        "--viewers", type=_positive, default=20_000, help="different viewers (default: 20000)"
    )
    parser.add_argument("--rounds", type=_positive, default=7, help="rounds of each kind (default: 7)")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a round of slots (default: 2)")
    parser.add_argument("--events", type=_positive, default=20_000, help="events a round (default: 20000)")
    parser.add_argument("--connections", type=_positive, default=16, help="callers at once (default: 16)")
    parser.add_argument("--seed", type=int, default=1, help="what the market is drawn from (default: 1)")
    parser.add_argument("--quick", action="store_true", help="short rounds, few events: to see that it works")
    parser.add_argument(
        "--results",
        type=Path,
        default=RESULTS,
        help="where the figures go as JSON (default: loadtest/results/latest.json)",
    )
    return parser.parse_args(words)


def _plan(given: argparse.Namespace) -> Plan:
    plan = Plan(
        campaigns=given.campaigns,
        viewers=given.viewers,
        rounds=given.rounds,
        round_s=given.seconds,
        round_events=given.events,
        connections=given.connections,
        seed=given.seed,
    )
    return plan._replace(viewers=2_000, rounds=2, round_s=0.5, round_events=2_000) if given.quick else plan


async def _measure(plan: Plan) -> tuple[dict[str, Any], str]:
    taken = cores()
    if not taken.apart:
        _say(
            "warning: there is one core only; generator and server share it, and the figures are of both together"
        )
    bodies = market.slot_requests(plan.viewers, plan.seed)
    async with scratch(settings.load(), "bench", _say, keep=False) as (own, url):
        os.sched_setaffinity(0, {taken.generator})  # after PostgreSQL was started, which may use every core
        wanted = Wanted(database_url=url, folder=str(own.data_home))
        async with serving("adserve", taken.server, wanted) as service:
            _say(f"planting {plan.campaigns:,} campaigns")
            await plant(url, service, market.brands(plan.campaigns, plan.seed))
            await asyncio.sleep(LEASED_S)
            of_slots = await slots.measure(plan, taken, service, bodies, _say)
            of_events = await events.measure(plan, service, bodies, url, _say)
    return as_json(plan, taken, service.rates, of_slots, of_events), as_table(of_slots, of_events)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - progress


if __name__ == "__main__":
    sys.exit(main())
