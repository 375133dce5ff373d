"""A closed-loop HTTP load generator that costs little beside what it measures: raw sockets, requests made ahead."""

import asyncio
import time
from collections.abc import Sequence
from typing import NamedTuple

from adserve.domain.time import SECOND_MS

_HEAD_END = b"\r\n\r\n"
_LENGTH = b"content-length:"


class LoadError(Exception):
    """The server answered something else than 200, or went away."""


class Load(NamedTuple):
    """What came of a load: requests a second, latency quantiles in ms, and the last body as a sample."""

    per_s: float
    p50_ms: float
    p99_ms: float
    sample: bytes


def post(path: str, body: bytes, key: str) -> bytes:
    """A whole request as it goes over the wire."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class _Connection(asyncio.Protocol):
    """Sends the next request as soon as the answer to the last is complete."""

    def __init__(self, run: "_Run") -> None:
        self._run = run
        self._buffer = b""
        self._sent_at = 0.0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - for the type checker
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head_end = self._buffer.find(_HEAD_END)
        if head_end < 0:
            return
        head = self._buffer[:head_end].lower()
        at = head.index(_LENGTH) + len(_LENGTH)
        end = head_end + len(_HEAD_END) + int(head[at:].split(b"\r\n", 1)[0])
        if len(self._buffer) < end:
            return
        body, self._buffer = self._buffer[head_end + len(_HEAD_END) : end], self._buffer[end:]
        if not head.startswith(b"http/1.1 200"):
            self._run.fail(f"{head.splitlines()[0]!r}: {body[:300]!r}")
            return
        self._run.answered(time.perf_counter() - self._sent_at, body)
        self._send()

    def connection_lost(self, error: Exception | None) -> None:
        self._run.closed(error)

    def _send(self) -> None:
        request = self._run.next_request()
        assert self._transport is not None  # noqa: S101 - for the type checker
        if request is None:
            self._transport.close()
            return
        self._sent_at = time.perf_counter()
        self._transport.write(request)


class _Run:
    def __init__(self, requests: Sequence[bytes], connections: int, seconds: float | None) -> None:
        self._requests = requests
        self._next = 0
        self._open = connections
        self._stop_at = None if seconds is None else time.perf_counter() + seconds
        self.latencies_s: list[float] = []
        self.sample = b""
        self.done = asyncio.get_running_loop().create_future()

    def next_request(self) -> bytes | None:
        """In turn; without a time, each is sent once."""
        if self._stop_at is None:
            if self._next == len(self._requests):
                return None
        elif time.perf_counter() >= self._stop_at:
            return None
        request = self._requests[self._next % len(self._requests)]
        self._next += 1
        return request

    def answered(self, latency_s: float, body: bytes) -> None:
        self.latencies_s.append(latency_s)
        self.sample = body

    def fail(self, reason: str) -> None:
        if not self.done.done():
            self.done.set_exception(LoadError(reason))

    def closed(self, error: Exception | None) -> None:
        self._open -= 1
        if error is not None:
            self.fail(repr(error))
        elif not self._open and not self.done.done():
            self.done.set_result(None)


async def load(
    port: int, requests: Sequence[bytes], *, connections: int, seconds: float | None = None
) -> Load:
    """Keeps `connections` busy for `seconds`, or until every request was sent once."""
    loop = asyncio.get_running_loop()
    run = _Run(requests, connections, seconds)
    started = time.perf_counter()
    for _ in range(connections):
        await loop.create_connection(lambda: _Connection(run), "127.0.0.1", port)
    await run.done
    elapsed_s = time.perf_counter() - started
    ordered = sorted(run.latencies_s)
    return Load(
        per_s=len(ordered) / elapsed_s,
        p50_ms=ordered[len(ordered) // 2] * SECOND_MS,
        p99_ms=ordered[len(ordered) * 99 // 100] * SECOND_MS,
        sample=run.sample,
    )
