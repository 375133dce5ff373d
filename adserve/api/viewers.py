"""/v1/viewers: what is held of a viewer, and its erasure. The viewer stands in the body, never in a URL."""

import logging
from collections.abc import AsyncIterable, AsyncIterator, Callable, Sequence
from contextlib import suppress
from datetime import date
from typing import Any, Literal, Protocol
from uuid import UUID

import msgspec
from aiohttp import web
from msgspec import Struct

from adserve.api.resource import OPERATORS
from adserve.api.shapes import Moment
from adserve.api.slots import Opaque
from adserve.domain.ids import uuid7
from adserve.domain.time import Clock, from_ms
from adserve.limits.counters import CountersAway
from adserve.limits.held import Held
from adserve.metering.erasing import Erasure
from adserve.metering.pseudonyms import Pseudonyms
from adserve.store.erasures import Erasures
from adserve.store.errors import Away
from adserve.store.outcomes import Outcomes
from adserve.store.viewers import Viewers
from adserve.web.operations import Call, NoQuery, Operation
from adserve.web.replies import JSON, json_response

log = logging.getLogger(__name__)

CHUNK_BYTES = 65_536


class About(Struct, frozen=True, forbid_unknown_fields=True):
    viewer: Opaque


class Amounts(Struct, frozen=True):
    """How many there were when the call came: events stored and waiting, sampled decisions, steps of ramps
    that compare the viewer; and of the counters, null while
    they cannot be asked, entries, hides, and answered requests that may come again."""

    events: int
    waiting: int
    decisions: int
    compared: int
    counted: int | None
    hides: int | None
    requests: int | None


NOTHING = Amounts(0, 0, 0, 0, 0, 0, 0)


class ErasureState(Struct, frozen=True):
    """`erased_at` is null while it is `erasing`."""

    id: UUID
    state: Literal["erasing", "erased"]
    asked_at: Moment
    erased_at: Moment | None
    held: Amounts


class Export(Struct, frozen=True):
    """`events` and `waiting` are as in the log of events; `compared` has a row for each step of a ramp; `counted` is what the counters hold."""

    at: Moment
    events: list[dict[str, Any]]
    waiting: list[dict[str, Any]]
    decisions: list[dict[str, Any]]
    compared: list[dict[str, Any]]
    counted: Held


class Counters(Protocol):
    async def held(self, viewer: bytes) -> Held: ...


class ViewersApi:
    def __init__(
        self,
        pseudonyms: Pseudonyms,
        erasures: Erasures,
        viewers: Viewers,
        outcomes: Outcomes,
        counters: Counters,
        clock: Clock,
        draw: Callable[[], int],
    ) -> None:
        self._pseudonyms = pseudonyms
        self._erasures = erasures
        self._viewers = viewers
        self._outcomes = outcomes
        self._counters = counters
        self._clock = clock
        self._draw = draw

    async def erase(self, call: Call[About, NoQuery]) -> web.StreamResponse:
        """Begins an erasure, unless one goes on or nothing has come since the last."""
        now_ms = self._clock()
        viewer, _ = self._pseudonyms.of(call.body.viewer, now_ms)
        erasure, held = await self._erasures.of(viewer), await self._amounts(viewer)
        if erasure is None or (erasure.cut_ms is not None and held != NOTHING):
            erasure = await self._erasures.ask(viewer, uuid7(now_ms, self._draw()), call.caller, now_ms)
        else:
            await self._erasures.note_call("erase", call.caller, erasure.id, now_ms)
        return json_response(_state(erasure, held), status=202)

    async def export(self, call: Call[About, NoQuery]) -> web.StreamResponse:
        now_ms = self._clock()
        viewer, _ = self._pseudonyms.of(call.body.viewer, now_ms)
        held, days = await self._held(viewer), await self._erasures.days()
        await self._erasures.note_call("export", call.caller, None, now_ms)
        response = web.StreamResponse(status=202, headers={"Cache-Control": "no-store"})
        response.content_type = JSON
        await response.prepare(call.request)
        try:
            await self._write(response, viewer, now_ms, days, held)
        except Away:
            log.warning("an export broke off")
            if call.request.transport is not None:
                call.request.transport.abort()  # what was sent cannot be taken back, and is not to look whole
        return response

    async def _write(
        self, response: web.StreamResponse, viewer: bytes, now_ms: int, days: Sequence[date], held: Held
    ) -> None:
        chunk = bytearray(b'{"at":' + msgspec.json.encode(from_ms(now_ms)))
        for name, items in (
            ("events", self._viewers.events(viewer, days)),
            ("waiting", self._viewers.waiting(viewer)),
            ("decisions", self._viewers.decisions(viewer, days)),
        ):
            async for part in _listed(name, items):
                chunk += part
                if len(chunk) >= CHUNK_BYTES:
                    await response.write(bytes(chunk))
                    chunk.clear()
        compared = msgspec.json.encode(await self._outcomes.held(viewer))
        await response.write(
            bytes(chunk) + b',"compared":' + compared + b',"counted":' + msgspec.json.encode(held) + b"}"
        )
        await response.write_eof()

    async def _held(self, viewer: bytes) -> Held:
        try:
            return await self._counters.held(viewer)
        except (CountersAway, TimeoutError) as error:
            raise Away(str(error)) from error

    async def _amounts(self, viewer: bytes) -> Amounts:
        counted: tuple[int | None, int | None, int | None] = (None, None, None)
        with suppress(Away):
            held = await self._held(viewer)
            counted = len(held.entries), len(held.hides), len(held.requests)
        days = await self._erasures.days()
        return Amounts(
            await _count(self._viewers.events(viewer, days)),
            await _count(self._viewers.waiting(viewer)),
            await _count(self._viewers.decisions(viewer, days)),
            len(await self._outcomes.held(viewer)),
            *counted,
        )

    def operations(self) -> list[Operation]:
        return [
            Operation(
                method="POST",
                path="/v1/viewers/erase",
                id="eraseViewer",
                tag="viewers",
                summary="Erase a viewer",
                description="Everything of the viewer goes within the hour; asked again, the answer says whether it has. "
                "What was billed stays billed, and names nobody.",
                handle=self.erase,
                scopes=OPERATORS,
                body=About,
                answer=ErasureState,
                statuses=(202,),
                refusals=(503,),
                example={"viewer": "u-123"},
            ),
            Operation(
                method="POST",
                path="/v1/viewers/export",
                id="exportViewer",
                tag="viewers",
                summary="All that is held of a viewer",
                handle=self.export,
                scopes=OPERATORS,
                body=About,
                answer=Export,
                statuses=(202,),
                refusals=(503,),
                example={"viewer": "u-123"},
            ),
        ]


def _state(erasure: Erasure, held: Amounts) -> ErasureState:
    ended_at = None if erasure.cut_ms is None else from_ms(erasure.cut_ms)
    state: Literal["erasing", "erased"] = "erasing" if ended_at is None else "erased"
    return ErasureState(erasure.id, state, from_ms(erasure.asked_ms), ended_at, held)


async def _listed(name: str, items: AsyncIterable[Any]) -> AsyncIterator[bytes]:
    yield f',"{name}":['.encode()
    first = True
    async for item in items:
        yield msgspec.json.encode(item) if first else b"," + msgspec.json.encode(item)
        first = False
    yield b"]"


async def _count(items: AsyncIterable[Any]) -> int:
    counted = 0
    async for _ in items:
        counted += 1
    return counted
