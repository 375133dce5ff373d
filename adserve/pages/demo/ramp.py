"""The demo's small ramp: from nobody to nearly everybody in about a minute, unless harm is planted."""

import time
from typing import Any, Protocol

import orjson
from aiohttp import web

from adserve.pages.demo.service import Service

PLAN = {
    "surface": "status",
    "steps": [{"percent": percent, "min_time_s": 6} for percent in (10, 25, 50, 90)],
    "guardrails": [{"metric": "session_seconds", "direction": "falls", "bound": 0.05, "min_viewers": 30}],
    "reason": "shown in the demo",
}
"""A tenth is left to the last step's control."""
NOBODY = {"surfaces": {"status": {"percent": 0}}}
ASKED_EVERY_S = 0.9
SHOWN = ("id", "status", "ended", "step", "percent", "reason", "waits_for", "steps")


class Harm(Protocol):
    """Whether invented viewers fare worse with ads."""

    planted: bool


class Ramp:
    def __init__(self, service: Service, harm: Harm) -> None:
        self._service = service
        self._harm = harm
        self._newest: dict[str, Any] | None = None
        self._asked_s = float("-inf")

    async def start(self) -> web.Response:
        """Takes everybody's ads away first: a ramp begins with nobody."""
        self._harm.planted = False
        answer = await self._ask("PUT", "/v1/rollout", NOBODY)
        return answer if answer.status != 200 else await self._ask("POST", "/v1/ramps", PLAN)

    async def end(self) -> web.Response:
        newest = await self.newest()
        number = 0 if newest is None else newest["id"]
        return await self._ask("POST", f"/v1/ramps/{number}/abort", {"reason": "ended in the demo"})

    def plant(self, harm: bool) -> None:
        self._harm.planted = harm

    async def newest(self) -> dict[str, Any] | None:
        """The newest plan, of a second ago at most; None before the first."""
        if time.monotonic() - self._asked_s >= ASKED_EVERY_S:
            self._asked_s = time.monotonic()
            answer = await self._ask("GET", "/v1/ramps?surface=status&limit=500")
            plans = orjson.loads(answer.body or b"{}")["items"] if answer.status == 200 else []  # type: ignore[arg-type]  # ours are bytes
            self._newest = _shown(plans[-1]) if plans else None
        return self._newest and self._newest | {"harm": self._harm.planted}

    async def _ask(self, method: str, path: str, body: Any = None) -> web.Response:
        if method != "GET":
            self._asked_s = float("-inf")  # what is asked next is another state
        return await self._service.forward(method, path, self._service.operator_key, body)


def _shown(plan: dict[str, Any]) -> dict[str, Any]:
    look = plan["look"]
    verdict = look["verdicts"][0] if look and look["verdicts"] else None
    return {name: plan[name] for name in SHOWN} | {"verdict": verdict}
