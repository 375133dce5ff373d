"""A closed-loop HTTP load generator that costs little beside what it measures: raw sockets, requests made ahead.

loadtest/open_loop.py sends by a schedule over the same connections.
"""

import asyncio
import itertools
import time
from collections.abc import Sequence
from typing import NamedTuple, Protocol, cast

from adserve.domain.time import SECOND_MS

HOST = "127.0.0.1"
SERIAL = b"################"
"""Stands in a request for a number that is another one each time it is sent."""
PERSON = b"%%%%"
"""Stands in a request for who of PEOPLE sends it: one after the other do."""
PEOPLE = 10
KEPT_EVERY = 50
PATIENCE_S = 30.0
"""How much longer than asked for a load may take before it is given up."""

_serials = itertools.count()

_HEAD_END = b"\r\n\r\n"
_LENGTH = b"content-length:"
_OK = b"HTTP/1.1 200"


class LoadError(Exception):
    """The server answered something else than 200, or went away."""


class Load(NamedTuple):
    """What came of a load: requests a second, latency quantiles in ms, the share of its core that the generator was
    busy, and the bodies that were kept."""

    per_s: float
    p50_ms: float
    p99_ms: float
    busy: float
    bodies: list[bytes]


def post(path: str, body: bytes, key: str) -> bytes:
    """A whole request as it goes over the wire."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def load(
    port: int,
    requests: Sequence[bytes],
    *,
    connections: int,
    seconds: float | None = None,
    kept_every: int = KEPT_EVERY,
) -> Load:
    """Keeps `connections` busy for `seconds`, or until every request was sent once. Raises LoadError."""
    run = _Run(requests, seconds, kept_every)
    started_s, cpu_s = time.perf_counter(), time.process_time()
    opened = await connect(port, run, min(connections, len(requests)))
    run.start(opened)
    try:
        async with asyncio.timeout(PATIENCE_S + (seconds or 0.0)):
            await run.done
    except TimeoutError:
        raise LoadError("the answers do not come to an end") from None
    finally:
        for connection in opened:
            connection.abort()
    elapsed_s = time.perf_counter() - started_s
    ordered = sorted(run.latencies_s)
    return Load(
        per_s=len(ordered) / elapsed_s,
        p50_ms=quantile(ordered, 0.5) * SECOND_MS,
        p99_ms=quantile(ordered, 0.99) * SECOND_MS,
        busy=(time.process_time() - cpu_s) / elapsed_s,
        bodies=run.bodies,
    )


def quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[int(len(ordered) * share)]


def numbered(request: bytes) -> bytes:
    """The request with a number of its own, and of one person, if it wants these."""
    serial = next(_serials)
    own = request.replace(SERIAL, b"%0*d" % (len(SERIAL), serial), 1)
    return own.replace(PERSON, b"%0*d" % (len(PERSON), serial % PEOPLE), 1)


class Owner(Protocol):
    """Whose connections they are: told of each whole body of a 200, and of the end of a connection by an error."""

    def answered(self, connection: "Connection", body: bytes, now_s: float) -> None: ...

    def failed(self, error: LoadError) -> None: ...


class Connection(asyncio.Protocol):
    """One request at a time. `since_s` is what its latency counts from."""

    def __init__(self, owner: Owner) -> None:
        self.since_s = 0.0
        self._owner = owner
        self._buffer = b""
        self._transport: asyncio.WriteTransport

    def send(self, request: bytes, since_s: float) -> None:
        self.since_s = since_s
        self._transport.write(request)

    def abort(self) -> None:
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)

    def data_received(self, data: bytes) -> None:
        answer = self._buffer + data if self._buffer else data
        head_end = answer.find(_HEAD_END)
        if head_end < 0:
            self._buffer = answer
            return
        head = answer[:head_end].lower()
        at = head.index(_LENGTH) + len(_LENGTH)
        body_at = head_end + len(_HEAD_END)
        if len(answer) < body_at + int(head[at:].split(b"\r\n", 1)[0]):
            self._buffer = answer
            return
        self._buffer = b""
        if answer.startswith(_OK):
            self._owner.answered(self, answer[body_at:], time.perf_counter())
        else:
            self._owner.failed(LoadError(answer[:500].decode(errors="replace")))

    def connection_lost(self, error: Exception | None) -> None:
        self._owner.failed(LoadError(f"the connection was closed: {error}"))


async def connect(port: int, owner: Owner, count: int) -> list[Connection]:
    loop = asyncio.get_running_loop()
    return [(await loop.create_connection(lambda: Connection(owner), HOST, port))[1] for _ in range(count)]


class _Run:
    """One closed loop: each connection sends the next request as soon as the answer to its last is complete."""

    def __init__(self, requests: Sequence[bytes], seconds: float | None, kept_every: int) -> None:
        self._requests = requests
        self._sent = 0
        self._answering = 0
        self._stop_at_s = None if seconds is None else time.perf_counter() + seconds
        self._kept_every = kept_every
        self.latencies_s: list[float] = []
        self.bodies: list[bytes] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def start(self, connections: Sequence[Connection]) -> None:
        self._answering = len(connections)
        for connection in connections:
            self._send(connection, time.perf_counter())

    def answered(self, connection: Connection, body: bytes, now_s: float) -> None:
        if len(self.latencies_s) % self._kept_every == 0:
            self.bodies.append(body)
        self.latencies_s.append(now_s - connection.since_s)
        self._send(connection, now_s)

    def failed(self, error: LoadError) -> None:
        if not self.done.done():
            self.done.set_exception(error)

    def _send(self, connection: Connection, now_s: float) -> None:
        """In turn; without a time, each is sent once."""
        over = self._sent == len(self._requests) if self._stop_at_s is None else now_s >= self._stop_at_s
        if not over:
            request = self._requests[self._sent % len(self._requests)]
            self._sent += 1
            connection.send(numbered(request), now_s)
            return
        self._answering -= 1
        if not self._answering and not self.done.done():
            self.done.set_result(None)
