"""A closed-loop HTTP load generator that costs little beside what it measures: raw sockets, requests made ahead."""

import asyncio
import itertools
import time
from collections.abc import Sequence
from typing import NamedTuple, cast

from adserve.domain.time import SECOND_MS

HOST = "127.0.0.1"
SERIAL = b"################"
"""Stands in a request for a number that is another one each time it is sent."""
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
    loop = asyncio.get_running_loop()
    started_s, cpu_s = time.perf_counter(), time.process_time()
    opened = [
        await loop.create_connection(lambda: _Connection(run), HOST, port)
        for _ in range(min(connections, len(requests)))
    ]
    try:
        async with asyncio.timeout(PATIENCE_S + (seconds or 0.0)):
            await asyncio.gather(*(connection.done for _, connection in opened))
    except TimeoutError:
        raise LoadError("the answers do not come to an end") from None
    finally:
        for transport, _ in opened:
            transport.abort()
    elapsed_s = time.perf_counter() - started_s
    ordered = sorted(run.latencies_s)
    return Load(
        per_s=len(ordered) / elapsed_s,
        p50_ms=ordered[len(ordered) // 2] * SECOND_MS,
        p99_ms=ordered[len(ordered) * 99 // 100] * SECOND_MS,
        busy=(time.process_time() - cpu_s) / elapsed_s,
        bodies=run.bodies,
    )


class _Run:
    """What the connections of one load share."""

    def __init__(self, requests: Sequence[bytes], seconds: float | None, kept_every: int) -> None:
        self._requests = requests
        self._sent = 0
        self._stop_at_s = None if seconds is None else time.perf_counter() + seconds
        self._kept_every = kept_every
        self.latencies_s: list[float] = []
        self.bodies: list[bytes] = []

    def next_request(self, now_s: float) -> bytes | None:
        """In turn; without a time, each is sent once."""
        if self._stop_at_s is None:
            if self._sent == len(self._requests):
                return None
        elif now_s >= self._stop_at_s:
            return None
        request = self._requests[self._sent % len(self._requests)]
        self._sent += 1
        return request.replace(SERIAL, b"%0*d" % (len(SERIAL), next(_serials)), 1)

    def answered(self, latency_s: float, body: bytes) -> None:
        if len(self.latencies_s) % self._kept_every == 0:
            self.bodies.append(body)
        self.latencies_s.append(latency_s)


class _Connection(asyncio.Protocol):
    """Sends the next request as soon as the answer to the last is complete."""

    def __init__(self, run: _Run) -> None:
        self._run = run
        self._buffer = b""
        self._sent_at_s = 0.0
        self._transport: asyncio.WriteTransport
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)
        self._send(time.perf_counter())

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
        if not answer.startswith(_OK):
            self._end(LoadError(answer[:500].decode(errors="replace")))
            return
        now_s = time.perf_counter()
        self._run.answered(now_s - self._sent_at_s, answer[body_at:])
        self._send(now_s)

    def connection_lost(self, error: Exception | None) -> None:
        self._end(LoadError(f"the connection was closed: {error}"))

    def _send(self, now_s: float) -> None:
        request = self._run.next_request(now_s)
        if request is None:
            self._end(None)
            return
        self._sent_at_s = now_s
        self._transport.write(request)

    def _end(self, error: LoadError | None) -> None:
        if self.done.done():
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)
