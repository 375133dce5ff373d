"""How long it takes to gather what a step of a ramp has seen of many viewers: `python -m loadtest.judging --viewers 1000000`."""

import argparse
import asyncio
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

from adserve import settings
from adserve.bootstrap.core import system_clock
from adserve.commands.scratch import scratch
from adserve.database import statements
from adserve.database.pools import open_pools
from adserve.domain.ramps import Arm, Plan, Ramp, Status, Step
from adserve.domain.rollouts import Stage
from adserve.rollout.arms import Standing
from adserve.rollout.assignments import Assignment
from adserve.store.evidence import gather
from adserve.store.outcomes import Outcomes, Told

SQL = statements.load(Path(__file__).parent / "sql" / "judging.sql")

ASSIGNED_AT_ONCE = 5_000
TOLD_AT_ONCE = 1_000
GATHERED = 20


def _viewer(number: int) -> bytes:
    return number.to_bytes(16, "big")


def _standings(stage: Stage) -> tuple[Standing, Standing]:
    return Standing(stage, Arm.EXPOSED), Standing(stage, Arm.CONTROL)


def _batches(count: int, size: int) -> Iterator[range]:
    return (range(first, min(first + size, count)) for first in range(0, count, size))


async def fill(store: Outcomes, stage: Stage, count: int) -> None:
    """Every viewer is assigned, and has one outcome."""
    chance, standings, now_ms = random.Random(1), _standings(stage), system_clock()  # noqa: S311 - chance that can be repeated
    began = time.perf_counter()
    for batch in _batches(count, ASSIGNED_AT_ONCE):
        await store.assign([Assignment(standings[number % 2], _viewer(number), now_ms) for number in batch])
    _say(f"assigned {count / (time.perf_counter() - began):,.0f} viewers/s on one connection")
    began = time.perf_counter()
    for batch in _batches(count, TOLD_AT_ONCE):
        told = [
            Told(
                _viewer(number),
                standings[number % 2],
                _viewer(number),
                now_ms,
                chance.randrange(60),
                chance.randrange(900),
                chance.random() < 0.6,
                chance.randrange(3),
            )
            for number in batch
        ]
        await store.add(told, now_ms)
    _say(f"counted {count / (time.perf_counter() - began):,.0f} outcomes/s on one connection")


async def measure(pools: Any, stage: Stage) -> None:
    plan = Plan("status", (Step(5_000, 60),), ())
    ramp = Ramp(stage.ramp, plan, Status.RUNNING, 0, stage.since_ms, 0, "")
    took = []
    for _ in range(GATHERED):
        began = time.perf_counter()
        seen = await gather(pools.operator, ramp, system_clock())
        took.append((time.perf_counter() - began) * 1_000)
    parts = await pools.recorder.fetchval(SQL.parts)
    _say(
        f"gathered {seen.exposed:,} against {seen.control:,} from {parts:,} parts in {min(took):.1f} to {max(took):.1f} ms"
    )
    for (line,) in await pools.recorder.fetch(SQL.explain):
        _say(f"    {line}")


async def run(count: int) -> None:
    async with scratch(settings.load(), "judging", _say, keep=False) as (_, url):
        pools = await open_pools(url)
        store, stage = Outcomes(pools.recorder, UUID(int=1)), Stage(7, 0, system_clock())
        try:
            await fill(store, stage, count)
            await measure(pools, stage)
            began = time.perf_counter()
            for _ in range(2):
                await store.compact()
            _say(f"added the parts up in {time.perf_counter() - began:.2f} s")
            await measure(pools, stage)
        finally:
            await pools.close()


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - the result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--viewers", type=int, default=1_000_000)
    asyncio.run(run(parser.parse_args().viewers))
