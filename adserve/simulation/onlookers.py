"""Onlookers for a ramp that somebody watches: they ask for ads for as long as a plan is under way, and report how their sessions went.

How long sessions are is invented; who saw ads is what the service answered. Nothing is shown to anybody: the ads go back.
"""

import asyncio
from collections.abc import Callable, Sequence
from random import Random
from typing import Any
from uuid import UUID

from adserve.simulation.caller import Caller
from adserve.simulation.crowd import FEED_LENGTH, Viewer, viewers

ONLOOKERS = 800
VISITORS = 160
"""Of them in one round."""
CONCURRENCY = 8
ROUND_S = 1.5
SESSION_S, SPREAD_S = 300.0, 75.0
SHORTER = 0.3
"""How much shorter the sessions of those who see ads are while it is planted."""


class Harm:
    planted = False


class Onlookers:
    """`going` says whether a plan is under way. Harm that was planted ends with the plan."""

    def __init__(self, caller: Caller, going: Callable[[], bool], harm: Harm, chance: Random) -> None:
        self._harm = harm
        self._caller = caller
        self._going = going
        self._chance = chance
        self._viewers = [
            viewer._replace(id=f"onlooker-{viewer.id}", consent={"personalised": True, "ads": True})
            for viewer in viewers(ONLOOKERS, 0)
        ]

    async def step(self, _now_ms: int) -> None:
        """One round, each ROUND_S: some of them look at their feed, and their sessions are reported."""
        if not self._going():
            self._harm.planted = False
            return
        chosen = self._chance.sample(self._viewers, VISITORS)
        rooms = asyncio.Semaphore(CONCURRENCY)
        tickets: list[str] = []

        async def watch(viewer: Viewer) -> bool:
            async with rooms:
                answer = await self._caller.slots(
                    {
                        "viewer": viewer.id,
                        "feed_length": FEED_LENGTH,
                        "context": viewer.context,
                        "consent": viewer.consent,
                    }
                )
            tickets.extend(placed.ticket for placed in answer.placements)
            return bool(answer.placements)

        saw = await asyncio.gather(*map(watch, chosen))
        if tickets:
            await self._caller.release(tickets)
        await self._caller.call("POST", "/v1/outcomes", {"outcomes": self._told(chosen, saw)})

    def _told(self, chosen: Sequence[Viewer], saw: Sequence[bool]) -> list[dict[str, Any]]:
        return [
            {
                "id": str(UUID(int=self._chance.getrandbits(128))),
                "viewer": viewer.id,
                "country": viewer.context["country"],
                "session_seconds": self._session_s(harmed=self._harm.planted and with_ads),
            }
            for viewer, with_ads in zip(chosen, saw, strict=True)
        ]

    def _session_s(self, *, harmed: bool) -> float:
        usual = max(10.0, self._chance.gauss(SESSION_S, SPREAD_S))
        return round(usual * (1 - SHORTER if harmed else 1), 1)
