"""The short way of a plain request that comes often: from the gate to the decision or the ledger and back, past aiohttp.

By way of aiohttp, reading a request and writing its answer cost as much as a decision, or more than an event. A whole request, with a
bearer key and nothing unusual in its head, is answered here; whatever else comes, and all that is to be refused with a
problem, goes the ordinary way from its first byte.
"""

import asyncio
import logging
import re
import types
from collections.abc import Callable, Coroutine, Generator
from email.utils import formatdate
from functools import lru_cache, partial
from typing import Any, Protocol

from adserve.domain.time import SECOND_MS, Clock

HEADS_CACHED_MAX = 4_096
AT_ONCE = 16
"""So many requests go step by step together, and none is answered before all are decided: what is done again and again is in the
processor's caches, and the kernel, which empties them, has its turn once."""

_HEAD_END = b"\r\n\r\n"
_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t -~]*)")
_BEARER = re.compile(rb"bearer +([!-~]+)[ \t]*", re.IGNORECASE)
_JSON = re.compile(rb"application/json(?:; ?charset=utf-8)?", re.IGNORECASE)
_SAYS_HOW = frozenset({b"authorization", b"content-type", b"content-encoding"})

log = logging.getLogger(__name__)

Decide = Callable[[str, bytes, int], Coroutine[Any, Any, bytes | None]]
"""From a key, a body and how long both have waited (ms) to the body of an answer; None where it is no plain 200."""


class Guest(Protocol):
    """Whose request it is. `gone` when nobody waits for the answer any more."""

    received_s: float
    gone: bool

    def answer(self, request: bytes, response: bytes | None) -> None:
        """Writes the response; without one the request is to go the ordinary way."""
        ...


class Lane:
    """Answers in the order of arrival, after everything that has arrived by now is known to the limiter."""

    def __init__(
        self,
        decide: Decide,
        seconds: Callable[[], float],
        clock: Clock,
        *,
        body_max_bytes: int,
        count: Callable[[], None],
    ) -> None:
        self.body_max_bytes = body_max_bytes
        self._decide = decide
        self._count = count
        self._seconds = seconds
        self._clock = clock
        self._queue: list[tuple[Guest, bytes, int, str]] = []
        self._unfinished: set[asyncio.Task[bytes | None]] = set()
        self._decided: list[tuple[Guest, bytes, bytes | None]] = []
        self._closed = False
        self._second = 0
        self._head = b""

    def enter(self, guest: Guest, request: bytes) -> bool:
        """Whether this whole request is for here; then `guest.answer` is called once, and not before this returns."""
        body_at = request.find(_HEAD_END) + len(_HEAD_END)
        secret = secret_of(request[:body_at])
        if secret is None or self._closed or len(request) - body_at > self.body_max_bytes:
            return False
        if not self._queue:
            asyncio.get_running_loop().call_soon(self._answer_all)
        self._queue.append((guest, request, body_at, secret))
        return True

    async def close(self, patience_s: float) -> None:
        """Lets nobody enter any more, and those who have be answered."""
        self._closed = True
        while self._queue:
            self._answer_all()
        if self._unfinished:
            await asyncio.wait(self._unfinished, timeout=patience_s)
        self._write_all()

    def _answer_all(self) -> None:
        queue, self._queue = self._queue[:AT_ONCE], self._queue[AT_ONCE:]
        if self._queue:
            asyncio.get_running_loop().call_soon(self._answer_all)
        going: list[tuple[Guest, bytes, Coroutine[Any, Any, bytes | None]]] = []
        for guest, request, body_at, secret in queue:
            if not guest.gone:
                waited_ms = int((self._seconds() - guest.received_s) * SECOND_MS)
                going.append((guest, request, self._decide(secret, request[body_at:], waited_ms)))
        while going:
            going = [one for one in going if self._goes_on(*one)]

    def _goes_on(self, guest: Guest, request: bytes, deciding: Coroutine[Any, Any, bytes | None]) -> bool:
        """Whether there is more of it to be done at once."""
        try:
            waits_for = deciding.send(None)
        except StopIteration as done:
            self._answer(guest, request, self._response(done.value))
        except Exception:
            log.exception("a request failed on the short way")
            self._answer(guest, request, None)
        else:
            if waits_for is None:
                return True
            task = asyncio.get_running_loop().create_task(_go_on(deciding, waits_for))
            self._unfinished.add(task)
            task.add_done_callback(partial(self._finish, guest, request))
        return False

    def _finish(self, guest: Guest, request: bytes, task: asyncio.Task[bytes | None]) -> None:
        self._unfinished.discard(task)
        if task.cancelled() or guest.gone:
            return
        error = task.exception()
        if error is not None:
            log.error("a request failed on the short way", exc_info=error)
        self._answer(guest, request, None if error is not None else self._response(task.result()))

    def _answer(self, guest: Guest, request: bytes, response: bytes | None) -> None:
        if not self._decided:
            asyncio.get_running_loop().call_soon(self._write_all)
        self._decided.append((guest, request, response))

    def _write_all(self) -> None:
        decided, self._decided = self._decided, []
        for guest, request, response in decided:
            if not guest.gone:
                guest.answer(request, response)

    def _response(self, body: bytes | None) -> bytes | None:
        if body is None:
            return None
        self._count()
        second = self._clock() // SECOND_MS
        if second != self._second:
            self._second = second
            self._head = (
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                f"Date: {formatdate(second, usegmt=True)}\r\nContent-Length: "
            ).encode()
        return b"%b%d\r\n\r\n%b" % (self._head, len(body), body)


@types.coroutine
def in_step() -> Generator[None, None, None]:
    """Lets the other requests that came at the same time come as far first."""
    yield


@types.coroutine
def _go_on(started: Coroutine[Any, Any, bytes | None], waits_for: Any) -> Generator[Any, Any, bytes | None]:
    """The rest of a coroutine that has begun: most never come to wait, and need no task."""
    while True:
        try:
            sent = yield waits_for
        except BaseException as error:  # a cancellation is the coroutine's to see
            step = partial(started.throw, error)
        else:
            step = partial(started.send, sent)
        try:
            waits_for = step()
        except StopIteration as done:
            result: bytes | None = done.value
            return result


@lru_cache(HEADS_CACHED_MAX)
def secret_of(head: bytes) -> str | None:
    """The bearer key in the head of a request whose body is plain JSON; None for any other head."""
    told: dict[bytes, bytes] = {}
    for line in head[: -len(_HEAD_END)].split(b"\r\n")[1:]:
        parts = _LINE.fullmatch(line)
        if parts is None:
            return None
        name = parts[1].lower()
        if name in _SAYS_HOW:
            if name in told:
                return None
            told[name] = parts[2].rstrip()
    bearer = _BEARER.fullmatch(told.pop(b"authorization", b""))
    json = _JSON.fullmatch(told.pop(b"content-type", b""))
    return bearer[1].decode() if bearer and json and not told else None
