"""The service as its callers reach it: over HTTP, with a key."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import aiohttp
import msgspec
from msgspec import Struct

from adserve.domain.slots import NoFill

EVENTS_PER_CALL_MAX = 1_000
OUR_CLIENT = {"User-Agent": "WhatsApp/2.26.1 A"}
"""The HTTP library's own name is that of a bot."""


class CallRefused(RuntimeError):
    """The service answered with a problem; the message is that problem."""

    def __init__(self, call: str, status: int, problem: str) -> None:
        super().__init__(f"{call}: {status} {problem}")
        self.status = status
        self.problem = problem


class PlacedAd(Struct, frozen=True):
    id: int
    campaign: int


class Urls(Struct, frozen=True):
    impression: str
    click: str
    hide: str
    report: str


class Placed(Struct, frozen=True):
    """A placement as POST /v1/slots answers it and the wrapper splices it in."""

    position: int
    ticket: str
    ad: PlacedAd
    urls: Urls


class SlotsAnswer(Struct, frozen=True):
    placements: tuple[Placed, ...]
    no_fill: NoFill | None


class Billed(Struct, frozen=True):
    micros: int
    currency: str


class EventAnswer(Struct, frozen=True):
    """What became of an event: the answer to sending it, or to asking for a ticket's events, which names `kind`."""

    outcome: str
    billed: Billed | None = None
    kind: str = ""


class _Events(Struct, frozen=True):
    results: tuple[EventAnswer, ...] = ()
    events: tuple[EventAnswer, ...] = ()


Answer = TypeVar("Answer")

_slots = msgspec.json.Decoder(SlotsAnswer)
_events = msgspec.json.Decoder(_Events)


class Caller:
    """Every method raises CallRefused for an answer that is not a success."""

    def __init__(self, session: aiohttp.ClientSession, base_url: str, key: str) -> None:
        self.session = session
        self.base_url = base_url
        self.key = key
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}

    async def slots(self, body: Mapping[str, Any]) -> SlotsAnswer:
        return _slots.decode(await self.call("POST", "/v1/slots", body))

    async def release(self, tickets: Sequence[str]) -> None:
        await self.call("POST", "/v1/tickets/release", {"tickets": tickets})

    async def send(self, reports: Sequence[Mapping[str, Any]]) -> list[EventAnswer]:
        """Sends events, in order, in as few calls as there may be."""
        answers: list[EventAnswer] = []
        for start in range(0, len(reports), EVENTS_PER_CALL_MAX):
            body = {"events": reports[start : start + EVENTS_PER_CALL_MAX]}
            answers += _events.decode(await self.call("POST", "/v1/events", body)).results
        return answers

    async def events_of(self, ticket: str) -> tuple[EventAnswer, ...]:
        return _events.decode(await self.call("GET", f"/v1/events/{ticket}")).events

    async def call(self, method: str, path: str, body: Any = None) -> bytes:
        data = None if body is None else msgspec.json.encode(body)
        url = self.base_url + path
        async with self.session.request(method, url, data=data, headers=self._headers) as answer:
            content = await answer.read()
            if answer.status >= 300:
                raise CallRefused(f"{method} {path}", answer.status, content.decode(errors="replace"))
            return content
