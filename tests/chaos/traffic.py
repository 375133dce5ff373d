"""Clients that show ads and report them until each is acknowledged, and what a replica makes of their acknowledgements."""

import asyncio
import itertools
import secrets
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer
from live import DEADLINE_MS, NO_ANSWER, Caller
from waiting import until

from adserve.accounting.reconciliation import Reconciliation
from adserve.database.pools import open_pool
from adserve.store.books import reconciled

CLIENTS = 8
PATIENCE_S = 0.05
FORWARDS_EVERY_S = 0.01
JUDGED_WITHIN_S = 60.0


class Acknowledged(NamedTuple):
    event: str | None
    outcome: str
    billed_micros: int


@dataclass
class Traffic:
    """`acknowledged` has every answer that a ticket's impression got, in order; a pixel's answer has no event."""

    caller: Caller
    events_url: str
    acknowledged: dict[str, list[Acknowledged]] = field(default_factory=lambda: defaultdict(list))
    unanswered: int = 0
    _asked: Any = field(default_factory=itertools.count)

    async def run(self, tickets: int) -> None:
        """Until so many tickets are acknowledged."""
        async with asyncio.TaskGroup() as group:
            for client in range(CLIENTS):
                group.create_task(self._client(client, tickets))

    async def _client(self, client: int, tickets: int) -> None:
        report = (self._batch, self._batch, self._one_by_one, self._pixels)[client % 4]
        while len(self.acknowledged) < tickets:
            viewer = secrets.token_hex(8)
            floor = {"micros": 100_000 * (1 + next(self._asked) % 7), "currency": "USD"}
            ask = {
                "viewer": viewer,
                "feed_length": 30,
                "request": viewer,
                "floor": floor,
                "deadline_ms": DEADLINE_MS,
            }
            answer = await self._insist(lambda ask=ask: self._post(self.caller.url + "/v1/slots", ask))
            shown = [placement["ticket"] for placement in answer["placements"]]
            if shown:
                await report(shown)

    async def _batch(self, tickets: list[str]) -> None:
        """The first of them twice, as an impatient client might."""
        sent = [*tickets, tickets[0]]
        events = [{"ticket": ticket, "kind": "impression"} for ticket in sent]
        url = self.events_url + "/v1/events"
        answer = await self._insist(lambda: self._post(url, {"events": events}))
        for ticket, result in zip(sent, answer["results"], strict=True):
            self.acknowledged[ticket].append(_acknowledged(result))

    async def _one_by_one(self, tickets: list[str]) -> None:
        for ticket in tickets:
            await self._batch([ticket])

    async def _pixels(self, tickets: list[str]) -> None:
        for ticket in tickets:
            await self._insist(lambda ticket=ticket: self._pixel(ticket))
            self.acknowledged[ticket].append(Acknowledged(None, "recorded", 0))

    async def _insist(self, ask: Callable[[], Awaitable[Any]]) -> Any:
        while True:
            try:
                answer = await ask()
            except NO_ANSWER:
                answer = None
            if answer is not None:
                return answer
            self.unanswered += 1
            await asyncio.sleep(PATIENCE_S)

    async def _post(self, url: str, body: Any) -> Any:
        headers = {"Authorization": f"Bearer {self.caller.keys['feed']}"}
        async with self.caller.session.post(url, json=body, headers=headers) as answer:
            return await _taken(answer)

    async def _pixel(self, ticket: str) -> Any:
        async with self.caller.session.get(f"{self.events_url}/i.gif", params={"e": ticket}) as answer:
            return await _taken(answer)

    async def kept(self) -> dict[str, list[Acknowledged]]:
        """What the replica knows of every ticket that was acknowledged, when all of it has settled."""
        await until(self._settled)
        async with asyncio.timeout(JUDGED_WITHIN_S):
            while True:  # until nothing waits for the counters any more
                kept = {ticket: await self._kept(ticket) for ticket in self.acknowledged}
                if all(event.outcome != "accepted" for events in kept.values() for event in events):
                    return kept
                await asyncio.sleep(FORWARDS_EVERY_S)

    def differing(self, kept: dict[str, list[Acknowledged]]) -> list[Any]:
        """What was said of a ticket, and what is kept of it, wherever that is not the same to the micro.

        An answer may be lost on its way: then the first that arrives says `duplicate`.
        """
        differing = []
        for ticket, answers in self.acknowledged.items():
            recorded = [answer for answer in answers if answer.outcome == "recorded" and answer.event]
            same = len(kept[ticket]) == 1 and all(
                answer.event in (None, kept[ticket][0].event) for answer in answers
            )
            if not same or recorded not in ([], kept[ticket]):
                differing.append((answers, kept[ticket]))
        return differing

    @property
    def disturbed(self) -> int:
        """Answers that would have been others without the outage."""
        accepted = [
            one for answers in self.acknowledged.values() for one in answers if one.outcome == "accepted"
        ]
        return self.unanswered + len(accepted)

    async def _settled(self) -> bool:
        status, parts = await self.caller.readiness()
        return status == 200 and bool(parts["database"]["ok"]) and parts["spool"]["detail"] == "empty"

    async def _kept(self, ticket: str) -> list[Acknowledged]:
        """PostgreSQL that was killed again and again may have been back for a moment only."""
        while True:
            reply = await self.caller.call("GET", f"/v1/events/{ticket}", key="feed")
            if reply.status != 503:
                assert reply.status == 200, reply
                return [_acknowledged(event) for event in reply.body["events"]]
            await asyncio.sleep(FORWARDS_EVERY_S)


def _acknowledged(event: dict[str, Any]) -> Acknowledged:
    return Acknowledged(event["event"], event["outcome"], event["billed"]["micros"] if event["billed"] else 0)


async def _taken(answer: aiohttp.ClientResponse) -> Any:
    """The body of an acknowledgement; None where the server asks to send it again."""
    if answer.status == 503:
        assert int(answer.headers["Retry-After"]) > 0
        return None
    assert answer.status == 200, await answer.text()
    return await (answer.json() if answer.content_type == "application/json" else answer.read())


@asynccontextmanager
async def early_front(url: str) -> AsyncIterator[str]:
    """A broken twin of the events' edge: acknowledges what it has in memory, and passes it on later, once."""
    queue: asyncio.Queue[tuple[str, dict[str, str], bytes]] = asyncio.Queue()

    async def take(request: web.Request) -> web.Response:
        headers = {
            name: request.headers[name]
            for name in ("Authorization", "Content-Type")
            if name in request.headers
        }
        queue.put_nowait((url + request.raw_path, headers, await request.read()))
        if request.method == "GET":
            return web.Response()
        recorded = {"event": None, "outcome": "recorded", "billed": None}
        return web.json_response({"results": [recorded for _ in (await request.json())["events"]]})

    async def forward(session: aiohttp.ClientSession) -> None:
        while True:
            target, headers, body = await queue.get()
            try:
                async with session.request("POST", target, headers=headers, data=body) as answer:
                    await answer.read()
            except NO_ANSWER:
                pass
            queue.task_done()
            await asyncio.sleep(FORWARDS_EVERY_S)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", take)
    async with TestServer(app) as front, aiohttp.ClientSession() as session:
        forwarding = asyncio.create_task(forward(session))
        try:
            yield f"http://127.0.0.1:{front.port}"
            await queue.join()
        finally:
            forwarding.cancel()
            await asyncio.gather(forwarding, return_exceptions=True)


@asynccontextmanager
async def keyless_twin() -> AsyncIterator[tuple[int, list[str]]]:
    """A broken twin of the ledger: stores and bills whatever comes, as often as it comes. Its port, and its tickets."""
    tickets: list[str] = []

    async def take(request: web.Request) -> web.Response:
        told = [event["ticket"] for event in (await request.json())["events"]]
        tickets.extend(told)
        recorded = {"event": None, "outcome": "recorded", "billed": None}
        return web.json_response({"results": [recorded for _ in told]})

    app = web.Application()
    app.router.add_post("/v1/events", take)
    async with TestServer(app) as server:
        assert server.port is not None
        yield server.port, tickets


async def books(database_url: str) -> Reconciliation:
    pool = await open_pool(database_url, "adserve_analyst", size=1)
    try:
        return await reconciled(pool)
    finally:
        await pool.close()
