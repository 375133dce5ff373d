"""Stands between the sockets and aiohttp, and refuses slot requests there while the limiter has no room.

To read a request and to write an answer that is ready is a small part of what aiohttp spends on either. A request is
refused here only when all that came before it on its connection has been answered, and when its head came whole and
says plainly where it ends, with nothing behind it yet; every other request goes to aiohttp, where `Admission` refuses it.
What is admitted and plain is answered by the lane (`web/lane.py`), without aiohttp; so are plain reports of events, which are never
refused here.
"""

import asyncio
import re
from collections.abc import Callable, Sequence
from contextvars import ContextVar, copy_context
from email.utils import formatdate
from functools import lru_cache
from typing import Protocol, cast

import msgspec
from aiohttp import web

from adserve.domain.ids import DecisionId, derived_uuid7
from adserve.domain.slots import Ask, NoFill
from adserve.domain.tickets import Ticket
from adserve.domain.time import SECOND_MS, Clock
from adserve.selection.decision import Decision
from adserve.web.lane import HEADS_CACHED_MAX, Lane
from adserve.web.limiter import Limiter

SLOTS = b"POST /v1/slots HTTP/1.1\r\n"
EVENTS = b"POST /v1/events HTTP/1.1\r\n"
HEAD_MAX_BYTES = 4_096
"""A longer head is for aiohttp to read: those that come often are remembered."""
GATHERED_WITHIN_S = 1.0
"""A request for the lane that is not whole by then goes to aiohttp, which asks for its key, and tells slow callers so."""
HANDLED_EVERY_S = 20.0
"""So often at least aiohttp gets a request of a connection that goes on."""

_HEAD_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,9})[ \t]*(?=\r\n)", re.IGNORECASE)
_LENGTH_NAME = re.compile(rb"\r\ncontent-length", re.IGNORECASE)
_NOT_PLAIN = re.compile(
    rb"\r\n(?:[ \t]|transfer-encoding|expect|upgrade|connection:[^\r\n]*close)", re.IGNORECASE
)
_ANSWER = b'{"decision":"%08x-%04x-%b-%012x","placements":[],"no_fill":"overloaded"}'  # a uuid7: time, chance, number
_UNKNOWN = -1
_NUMBERS = 1 << 48


class Refusals:
    """Ready-made answers, each with a decision's id of its own."""

    def __init__(self, clock: Clock, draw: Callable[[], int]) -> None:
        self._clock = clock
        chance = draw()
        self._number = chance % _NUMBERS
        self._chance = b"7%03x-%04x" % (chance >> 48 & 0xFFF, 0x8000 | chance >> 60 & 0x3FFF)
        self._second = 0
        self._head = b""

    def answer(self) -> bytes:
        """A whole HTTP response."""
        now_ms = self._clock()
        if now_ms // SECOND_MS != self._second:
            self._second = now_ms // SECOND_MS
            self._head = (
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(_ANSWER % (0, 0, self._chance, 0))}\r\n"
                f"Date: {formatdate(self._second, usegmt=True)}\r\n\r\n"
            ).encode()
        self._number = (self._number + 1) % _NUMBERS
        return self._head + _ANSWER % (now_ms >> 16, now_ms & 0xFFFF, self._chance, self._number)


class Connection(asyncio.Protocol):
    """One connection's protocol, around aiohttp's own."""

    def __init__(
        self,
        limiter: Limiter,
        refusals: Refusals,
        slots: Lane | None,
        events: Lane | None,
        handler: asyncio.Protocol,
    ) -> None:
        self.received_s = 0.0
        """When the request that is being answered began to arrive."""
        self.admitted = False
        self.gone = False
        self._limiter = limiter
        self._refusals = refusals
        self._slots = slots
        self._events = events
        self._handler = handler
        self._handled_s = -HANDLED_EVERY_S  # when aiohttp got something last
        self._begun = bytearray()  # of a request for the lane that is not whole yet
        self._patience: asyncio.TimerHandle | None = None  # with it
        self._inside = False  # the lane has a request of this connection
        self._behind = b""  # what came meanwhile
        self._transport: asyncio.Transport
        self._left = 0  # bytes of the present request still to come; negative for good once that is not known
        self._handled = False  # aiohttp has something of this connection that it has not answered
        self._refusing = False
        self._full = False  # the caller does not read what it is answered

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        context = copy_context()  # of every task that aiohttp makes for this connection
        context.run(_connection.set, self)
        context.run(self._handler.connection_made, transport)

    def data_received(self, data: bytes) -> None:
        if self._inside:
            self._behind += data
            self._transport.pause_reading()
            return
        if self._begun:
            self._begun += data
            if len(self._begun) < self._left:
                return
            data = self._gathered()
        elif not self._left and not self._handled:
            self.received_s = self._limiter.seconds()
            self._left = length_of(data)
            if self._gathers(data):
                return
        else:
            self._go_on(data)
            return
        if not self._begin(data):
            self._go_on(data)

    def answer(self, request: bytes, response: bytes | None) -> None:
        """Writes the lane's response; without one, aiohttp gets the request."""
        self._inside = False
        if response is None:
            self._handled = True
            self._left = len(request)
            self._handle(request)
        else:
            self._transport.write(response)
            self._leave()
        if self._behind:
            behind, self._behind = self._behind, b""
            self._transport.resume_reading()
            self.data_received(behind)

    def answered(self) -> None:
        """aiohttp has the whole answer to the request that began last."""
        self._handled = False
        self._leave()

    def pause_writing(self) -> None:
        self._full = True
        self._handler.pause_writing()

    def resume_writing(self) -> None:
        self._full = False
        self._handler.resume_writing()

    def eof_received(self) -> bool | None:
        return self._handler.eof_received()

    def connection_lost(self, error: Exception | None) -> None:
        self.gone = True
        self._gathered()
        self._leave()
        self._handler.connection_lost(error)

    def _gathers(self, data: bytes) -> bool:
        """Whether the lane is to have the request that begins here once it is whole: most clients send head and body one after
        the other."""
        lane = self._lane_of(data)
        if lane is None or not len(data) < self._left <= HEAD_MAX_BYTES + lane.body_max_bytes:
            return False
        self._begun += data
        self._patience = asyncio.get_running_loop().call_later(GATHERED_WITHIN_S, self._give_up)
        return True

    def _gathered(self) -> bytes:
        if self._patience is not None:
            self._patience.cancel()
        begun = bytes(self._begun)
        self._begun.clear()
        return begun

    def _give_up(self) -> None:
        self._handled = True
        self._handle(self._gathered())

    def _begin(self, data: bytes) -> bool:
        """Whether the lane has the request that begins here."""
        lane = self._lane_of(data)
        if self._left >= len(data) and not self._full and data.startswith(SLOTS):
            self.admitted = self._limiter.admit()
            self._refusing = not self.admitted
        self._handled = not self._refusing
        if lane is None or self._refusing or self._left != len(data):
            return False
        self._inside = lane.enter(self, data)
        if self._inside:
            self._left = 0
            self._handled = False
        return self._inside

    def _lane_of(self, data: bytes) -> Lane | None:
        """Not always one: aiohttp closes connections on which it hears nothing."""
        if self._full or self.received_s - self._handled_s > HANDLED_EVERY_S:
            return None
        if data.startswith(SLOTS):
            return self._slots
        return self._events if data.startswith(EVENTS) else None

    def _go_on(self, data: bytes) -> None:
        if self._refusing:
            self._swallow(data)
        else:
            self._handle(data)

    def _handle(self, data: bytes) -> None:
        if self._left >= 0:
            self._left = max(self._left - len(data), _UNKNOWN)
        else:
            self.received_s = self._limiter.seconds()
        self._handled_s = self.received_s
        self._handler.data_received(data)

    def _swallow(self, data: bytes) -> None:
        """The rest of a refused request; what comes behind it is the next."""
        behind = data[self._left :]
        self._left = max(self._left - len(data), 0)
        if not self._left:
            self._refusing = False
            self._transport.write(self._refusals.answer())
            if behind:
                self.data_received(behind)

    def _leave(self) -> None:
        if self.admitted:
            self.admitted = False
            self._limiter.finish(self._limiter.seconds() - self.received_s)


_connection: ContextVar[Connection | None] = ContextVar("connection", default=None)


def length_of(data: bytes) -> int:
    """How long the request is that begins `data`; negative when its head does not say so plainly."""
    body_at = data.find(_HEAD_END, 0, HEAD_MAX_BYTES) + len(_HEAD_END)
    return _length_of(data[:body_at]) if body_at >= len(_HEAD_END) else _UNKNOWN


@lru_cache(HEADS_CACHED_MAX)
def _length_of(head: bytes) -> int:
    head_end = len(head) - len(_HEAD_END)
    if _NOT_PLAIN.search(head, 0, head_end):
        return _UNKNOWN
    named = _LENGTH_NAME.findall(head, 0, head_end)
    if not named:
        return len(head)
    told = _LENGTH.search(head, 0, head_end + 2)
    return len(head) + int(told[1]) if told and len(named) == 1 else _UNKNOWN


def answered(response: web.StreamResponse) -> None:
    """To be called with each answer. Those that are written bit by bit end later than we could see."""
    connection = _connection.get()
    if connection is not None and type(response) is web.Response:
        connection.answered()


class Slots(Protocol):
    async def answer(self, ask: Ask) -> Decision: ...

    async def release(self, tickets: Sequence[Ticket]) -> int: ...


class Admission:
    """Stands before the slots: counts the time since a request arrived against its deadline, and refuses what the gate
    could not."""

    def __init__(self, slots: Slots, limiter: Limiter, clock: Clock, draw: Callable[[], int]) -> None:
        self._slots = slots
        self._limiter = limiter
        self._clock = clock
        self._draw = draw

    async def answer(self, ask: Ask) -> Decision:
        connection = _connection.get()
        if connection is None or not connection.admitted:
            return await self._admit(ask)
        waited_ms = int((self._limiter.seconds() - connection.received_s) * SECOND_MS)
        if not waited_ms:
            return await self._slots.answer(ask)
        if waited_ms >= ask.deadline_ms:
            return self._nothing(NoFill.DEADLINE)
        return await self._slots.answer(msgspec.structs.replace(ask, deadline_ms=ask.deadline_ms - waited_ms))

    async def release(self, tickets: Sequence[Ticket]) -> int:
        return await self._slots.release(tickets)

    async def _admit(self, ask: Ask) -> Decision:
        if not self._limiter.admit():
            return self._nothing(NoFill.OVERLOADED)
        began_s = self._limiter.seconds()
        try:
            return await self._slots.answer(ask)
        finally:
            self._limiter.finish(self._limiter.seconds() - began_s)

    def _nothing(self, why: NoFill) -> Decision:
        return Decision(DecisionId(derived_uuid7(self._clock(), self._draw(), 0)), (), why)
