"""A service that knows only what a replay needs of one: it serves its campaigns in turn and records every event."""

from typing import Any

from aiohttp import web

from adserve.simulation.clock import VirtualClock

PRICE_MICROS = 2_000


class ServiceTwin:
    """`asked` and `reported` hold the virtual moment of each request and event with what was sent."""

    def __init__(self, clock: VirtualClock, campaigns: list[int]) -> None:
        self.asked: list[tuple[int, dict[str, Any]]] = []
        self.reported: list[tuple[int, dict[str, Any]]] = []
        self.steps: list[int] = []
        self.app = web.Application()
        self.app.router.add_post("/v1/slots", self._slots)
        self.app.router.add_post("/v1/events", self._events)
        self._clock = clock
        self._campaigns = campaigns

    async def step(self, now_ms: int) -> None:
        self.steps.append(now_ms)

    async def _slots(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.asked.append((self._clock(), body))
        if body["viewer"] == "unknown":
            return web.json_response({"placements": [], "no_fill": "not_in_rollout"})
        if body["viewer"] == "hostile":
            return web.json_response({"title": "no such viewer"}, status=400)
        number = len(self.asked)
        campaign = self._campaigns[number % len(self._campaigns)]
        urls = {"impression": "", "click": "", "hide": "", "report": ""}
        placed = {
            "position": 1,
            "ticket": f"t{number}",
            "ad": {"id": campaign, "campaign": campaign},
            "urls": urls,
        }
        return web.json_response({"placements": [placed], "no_fill": None})

    async def _events(self, request: web.Request) -> web.Response:
        events = (await request.json())["events"]
        self.reported += [(self._clock(), event) for event in events]
        return web.json_response({"results": [_result(event["kind"]) for event in events]})


def _result(kind: str) -> dict[str, Any]:
    if kind == "impression":
        return {"outcome": "recorded", "billed": {"micros": PRICE_MICROS, "currency": "USD"}}
    return {"outcome": "unbilled_kind", "billed": None}
