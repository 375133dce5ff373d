"""Walks the plans of staged ramps: each minute, and at once when a person has acted, on one replica.

What a plan has come to lies in PostgreSQL alone, and changes together with the percents it sets: whichever process looks next, after
whatever end of the one before, finds it where it stands.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from prometheus_client import Counter

from adserve.background import Task
from adserve.domain.ramps import Look, Ramp, Status
from adserve.domain.time import DAY_MS, MINUTE_MS
from adserve.rollout.guardrails import look_at
from adserve.rollout.ramps import BEFORE_FIRST
from adserve.store import ramps, rollouts
from adserve.store.evidence import gather

log = logging.getLogger(__name__)

TURN_S = 2.0
"""How often each replica asks whether it is its turn: a start, or a pause of all ads, is noticed as soon."""
OLD_LOOKS_S = 3_600.0
LOOKS_KEPT_MS = 30 * DAY_MS

MOVES = Counter("adserve_ramp_moves", "Moves of plans by themselves, by what they led to.", ["status"])

Observe = Callable[[Any, Ramp, int], Awaitable[Look]]
"""What a plan sees of the step that it stands at, over a connection of the operator's."""


async def observed(connection: Any, ramp: Ramp, now_ms: int) -> Look:
    return look_at(ramp, await gather(connection, ramp, now_ms), now_ms)


class Walking:
    """Every method is safe to repeat and to run beside others' in other processes."""

    def __init__(self, pool: Any, observe: Observe = observed, look_ms: int = MINUTE_MS) -> None:
        self._pool = pool
        self._observe = observe
        self._look_ms = look_ms

    def tasks(self, wakes: Mapping[str, asyncio.Event]) -> tuple[Task, ...]:
        return (
            Task("ramps", self.step, TURN_S, wakes[ramps.CHANNEL]),
            Task("old looks of ramps", self.forget, OLD_LOOKS_S),
        )

    async def step(self, now_ms: int) -> None:
        """A plan that cannot be looked at does not keep the others from being: its failure is raised in the end."""
        failed: list[Exception] = []
        async with self._pool.acquire() as connection:
            if not await ramps.take_turn(connection):
                return
            paused = await rollouts.paused(connection)
            for ramp, due in await ramps.active(connection, now_ms - self._look_ms):
                begun = ramp.step != BEFORE_FIRST
                if begun and not due and not paused:
                    continue
                try:
                    look = await self._observe(connection, ramp, now_ms) if begun and due else None
                    await self._decide(connection, ramp, look, now_ms)
                except Exception as error:
                    failed.append(error)
        if failed:
            raise failed[0]

    async def _decide(self, connection: Any, ramp: Ramp, look: Look | None, now_ms: int) -> None:
        async with connection.transaction():
            move = await ramps.decide(connection, ramp, look, now_ms)
        if move is not None:
            MOVES.labels(move.status).inc()
            level = logging.WARNING if move.status in (Status.ROLLED_BACK, Status.HELD) else logging.INFO
            log.log(level, "plan moved: %s", move.reason, extra={"ramp": ramp.id, "status": move.status})

    async def forget(self, now_ms: int) -> None:
        async with self._pool.acquire() as connection:
            await ramps.forget_looks(connection, now_ms - LOOKS_KEPT_MS)
