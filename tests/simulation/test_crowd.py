"""A crowd at a service that forgets: whatever it acknowledged and lost must come to light."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer

from adserve.simulation.caller import Caller
from adserve.simulation.crowd import LOST, Crowd, viewers
from adserve.simulation.report import Tally, disagreements

PRICE_MICROS = 1_500


class Keeper:
    """Places one ad a request and keeps each event once. With `forgets`, the ones that come by URL it only acknowledges."""

    def __init__(self, *, forgets: bool) -> None:
        self.events: dict[tuple[str, str], int] = {}
        self.billed_micros: dict[int, int] = {}
        self.billed_twice = 0
        self.posted_micros = self.billed_micros
        self._forgets = forgets
        self._kept: set[tuple[str, str]] = set()
        self._tickets = 0

    async def feed(self, _request: web.Request) -> web.Response:
        return web.json_response(
            {"items": [{"id": "s1", "author": "a"}, {"type": "ad", **self._placement()}]}
        )

    async def slots(self, _request: web.Request) -> web.Response:
        return web.json_response({"placements": [self._placement()], "no_fill": None})

    async def release(self, _request: web.Request) -> web.Response:
        return web.json_response({"released": 1})

    async def take(self, request: web.Request) -> web.Response:
        events = (await request.json())["events"]
        return web.json_response(
            {"results": [self._keep(event["ticket"], event["kind"]) for event in events]}
        )

    async def fire(self, request: web.Request) -> web.Response:
        if not self._forgets:
            self._keep(request.query["e"], request.match_info["kind"])
        return web.Response()

    async def kept(self, request: web.Request) -> web.Response:
        ticket = request.match_info["ticket"]
        kinds = [kind for of, kind in self._kept if of == ticket]
        return web.json_response({"events": [{"kind": kind, **_rated(kind)} for kind in kinds]})

    def _keep(self, ticket: str, kind: str) -> dict[str, Any]:
        if not (ticket[1:].isdigit() and ticket.startswith("t") and int(ticket[1:]) <= self._tickets):
            return {"outcome": "refused", "billed": None}
        if (ticket, kind) in self._kept:
            return {"outcome": "duplicate", "billed": None}
        self._kept.add((ticket, kind))
        answer = _rated(kind)
        self.events[kind, answer["outcome"]] = self.events.get((kind, answer["outcome"]), 0) + 1
        if answer["billed"]:
            self.billed_micros[7] = self.billed_micros.get(7, 0) + PRICE_MICROS
        return answer

    def _placement(self) -> dict[str, Any]:
        self._tickets += 1
        ticket = f"t{self._tickets}"
        urls = {
            name: f"{self.base_url}/fire/{name}?e={ticket}"
            for name in ("impression", "click", "hide", "report")
        }
        return {"position": 1, "ticket": ticket, "ad": {"id": 7, "campaign": 7}, "urls": urls}

    base_url = ""


def _rated(kind: str) -> dict[str, Any]:
    if kind == "impression":
        return {"outcome": "recorded", "billed": {"micros": PRICE_MICROS, "currency": "USD"}}
    return {"outcome": "unbilled_kind", "billed": None}


@asynccontextmanager
async def visited(*, forgets: bool) -> AsyncIterator[tuple[Tally, Keeper]]:
    keeper, tally = Keeper(forgets=forgets), Tally()
    app = web.Application()
    app.add_routes(
        [
            web.get("/v1/feed/status", keeper.feed),
            web.post("/v1/slots", keeper.slots),
            web.post("/v1/tickets/release", keeper.release),
            web.post("/v1/events", keeper.take),
            web.get("/v1/events/{ticket}", keeper.kept),
            web.get("/fire/{kind}", keeper.fire),
        ]
    )
    async with TestServer(app) as server, aiohttp.ClientSession() as session:
        keeper.base_url = str(server.make_url("")).rstrip("/")
        crowd = Crowd(Caller(session, keeper.base_url, "key"), tally)
        await crowd.go(list(viewers(30, 0)), lambda _: None, lambda _: None)
        yield tally, keeper


async def test_what_the_crowd_was_told_is_what_was_kept() -> None:
    async with visited(forgets=False) as (tally, keeper):
        assert disagreements(tally, keeper) == []
        assert tally.events["impression", "duplicate"] > 0
        assert tally.events["impression", "refused"] > 0


async def test_control_events_that_are_acknowledged_and_lost_come_to_light() -> None:
    async with visited(forgets=True) as (tally, keeper):
        assert tally.events["impression", LOST] > 0
        assert any(LOST in found for found in disagreements(tally, keeper))


def test_a_seed_makes_a_crowd() -> None:
    def crowd(seed: int) -> list[tuple[Any, ...]]:
        return [(viewer.id, viewer.context, viewer.chance.random()) for viewer in viewers(20, seed)]

    assert crowd(1) == crowd(1)
    assert crowd(1) != crowd(2)
