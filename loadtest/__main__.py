"""`make bench`: how fast the real service is, beside what nothing of its kind could exceed."""

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import orjson
import uvloop

from adserve import settings
from adserve.bootstrap.server import database_server
from adserve.commands.scratch import scratch
from adserve.database.refusal import DatabaseRefused
from adserve.simulation.seed import SeedError
from loadtest import events, market, slots
from loadtest.figures import Plan, Sizes
from loadtest.generator import LoadError, load, post
from loadtest.planting import plant
from loadtest.processes import Cores, NotServing, cores, redis, rss_mb, serving, workers
from loadtest.report import Figures, Memory, as_json, as_table
from loadtest.servers import Ready, Wanted
from loadtest.slots import Services

RESULTS = Path(__file__).parent / "results" / "latest.json"
REFUSALS = (DatabaseRefused, LoadError, LookupError, NotServing, OSError, SeedError, settings.SettingsError)

QUICK = Sizes(100, 1_000, 5_000)
FILLED = 0.9
"""The share of answers with an ad from which on a new market is said to be there."""
FILLED_WITHIN_S = 120.0
PROBES = 100


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
        "--sizes",
        type=_positive,
        nargs=3,
        default=Sizes(100, 10_000, 100_000),
        help="campaigns, an ad each, in three catalogues; most is measured with the second (default: 100 10000 100000)",
    )
    parser.add_argument(
        "--viewers", type=_positive, default=20_000, help="different viewers (default: 20000)"
    )
    parser.add_argument("--rounds", type=_positive, default=5, help="rounds of each kind (default: 5)")
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
        sizes=Sizes(*given.sizes),
        viewers=given.viewers,
        rounds=given.rounds,
        round_s=given.seconds,
        round_events=given.events,
        connections=given.connections,
        seed=given.seed,
    )
    if not given.quick:
        return plan
    return plan._replace(sizes=QUICK, viewers=2_000, rounds=2, round_s=0.5, round_events=2_000)


async def _measure(plan: Plan) -> tuple[dict[str, Any], str]:
    taken = cores()
    if not taken.apart:
        _say(
            "warning: there is one core only; generator and server share it, and the figures are of both together"
        )
    bodies = market.slot_requests(plan.viewers, plan.seed)
    async with AsyncExitStack() as stack:
        server_url = await stack.enter_async_context(database_server(settings.load(), _say))
        redis_url = await stack.enter_async_context(redis(taken.generator))
        if redis_url is None:
            _say("warning: there is no redis-server on PATH: nothing is measured with counters in Redis")
        os.sched_setaffinity(0, {taken.generator})  # after PostgreSQL was started, which may use every core
        bench = _Bench(stack, plan, taken, bodies[:PROBES], server_url)
        small = await bench.service(plan.sizes.small)
        usual = await bench.service(plan.sizes.usual)
        usual_url = bench.database_url
        large = await bench.service(plan.sizes.large)
        shared = two = None
        if redis_url is not None:
            shared = await bench.service(plan.sizes.usual, redis_url)
            two = await bench.two_workers(redis_url, shared.key)
        services = Services(small, usual, large, shared, two)
        of_slots = await slots.measure(plan, taken, services, bodies, _say)
        memory = Memory(rss_mb(usual.pid), rss_mb(large.pid))
        of_events = await events.measure(plan, taken, usual, bodies, usual_url, _say)
    figures = Figures(plan, taken, usual.rates, of_slots, memory, of_events)
    return as_json(figures), as_table(figures)


class _Bench:
    """Starts what is measured; all of it ends with `stack`. `database_url` and `folder` are of the service started last."""

    def __init__(
        self,
        stack: AsyncExitStack,
        plan: Plan,
        taken: Cores,
        probes: Sequence[Mapping[str, Any]],
        server_url: str,
    ) -> None:
        self._stack = stack
        self._plan = plan
        self._taken = taken
        self._probes = probes
        self._settings = msgspec.structs.replace(settings.load(), database_url=server_url)
        self.database_url = ""
        self.folder = Path()

    async def service(self, campaigns: int, redis_url: str | None = None) -> Ready:
        """A service with a market of its own."""
        own, url = await self._stack.enter_async_context(scratch(self._settings, "bench", _say, keep=False))
        self.database_url, self.folder = url, own.data_home
        wanted = Wanted(database_url=url, folder=str(own.data_home), redis_url=redis_url)
        service = await self._stack.enter_async_context(serving("adserve", self._taken.server, wanted))
        _say(f"planting {campaigns:,} campaigns")
        await plant(self.database_url, service, market.brands(campaigns, self._plan.seed))
        await self._filled(service)
        return service

    async def two_workers(self, redis_url: str, key: str) -> Ready:
        """Beside the service that was started last, with the same market and counters."""
        given = {
            "database_url": self.database_url,
            "redis_url": redis_url,
            "data_home": self.folder,
            "model_path": self.folder / "model",
            "log_level": "WARNING",
        }
        ready = await self._stack.enter_async_context(workers(2, given))
        return msgspec.structs.replace(ready, key=key)

    async def _filled(self, service: Ready) -> None:
        """Raises LookupError when the ads of a new market do not come."""
        requests = [post("/v1/slots", orjson.dumps(body), service.key) for body in self._probes]
        until_s = time.monotonic() + FILLED_WITHIN_S
        while time.monotonic() < until_s:
            answers = (await load(service.port, requests, connections=1, kept_every=1)).bodies
            if sum(b'"placements":[]' not in body for body in answers) >= FILLED * len(answers):
                return
            await asyncio.sleep(0.5)
        raise LookupError("the service places too few ads")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - progress


if __name__ == "__main__":
    sys.exit(main())
