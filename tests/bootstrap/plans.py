"""Plans in a database, and replicas of a test that see what they are told to see."""

from typing import Any

from adserve.database.pools import Pools
from adserve.domain.ramps import (
    Act,
    Direction,
    Finding,
    Guardrail,
    Look,
    Metric,
    Mismatch,
    Plan,
    Ramp,
    Status,
    Step,
    Verdict,
)
from adserve.store import ramps, rollouts

GUARDRAIL = Guardrail(Metric.SESSION_SECONDS, Direction.FALLS, 0.02)
PLAN = Plan("status", (Step(1, 60), Step(100, 60), Step(10_000, 60)), (GUARDRAIL,), ("ID", "SG"))
FINE = Mismatch(False, 0.5, "as asked for")


class Seen:
    """What the replicas of a test see of every step."""

    def __init__(self) -> None:
        self.finding = Finding.FINE
        self.looks = 0
        self.error: Exception | None = None

    async def observe(self, _connection: Any, ramp: Ramp, now_ms: int) -> Look:
        if self.error is not None:
            raise self.error
        self.looks += 1
        verdict = Verdict(GUARDRAIL, self.finding, -0.05, -0.06, -0.04, f"sessions are {self.finding}")
        return Look(now_ms, ramp.step, 1_000, 990, (verdict,), FINE)


async def made(pools: Pools, clock: Any, plan: Plan = PLAN) -> int:
    async with pools.operator.acquire() as connection, connection.transaction():
        return await ramps.create(connection, plan, "a test", "because", clock())


async def act(pools: Pools, id_: int, act_: Act, clock: Any) -> None:
    async with pools.operator.acquire() as connection, connection.transaction():
        await ramps.act(connection, id_, act_, "a test", "because", clock())


async def stands(pools: Pools, id_: int) -> tuple[Status, int, dict[str, int]]:
    async with pools.operator.acquire() as connection:
        ramp = (await ramps.one(connection, id_)).ramp
        return ramp.status, ramp.step, (await rollouts.read(connection))["status"].countries


async def history(pools: Pools, id_: int) -> list[tuple[str, str, int]]:
    async with pools.operator.acquire() as connection:
        rows = await ramps.history(connection, id_, 0, 100)
    return [(row.act, row.status, row.percent_bp) for row in rows]


def at(percent_bp: int) -> dict[str, int]:
    return dict.fromkeys(PLAN.countries, percent_bp)
