"""An open loop: requests are sent by a schedule whatever comes back, and wait from the moment that was meant for them.

So a server that is too slow cannot slow down those who ask.
"""

import asyncio
import itertools
import random
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from adserve.domain.time import SECOND_MS
from loadtest.generator import Connection, LoadError, connect, numbered, quantile

CONNECTIONS = 256
"""The most slot requests that are in flight at once."""
SIDE_CONNECTIONS = 8
DEADLINE_S = 0.03
"""An answer that comes later is of no use; a request that was not sent until then is given up."""
PATIENCE_S = 10.0
PAUSE_S = 0.00005
"""The event loop's timers are a millisecond late, which is more than many an answer takes. Between two requests the thread
itself sleeps for so long at a time, or the kernel moves all else that runs to the server's core."""
NO_AD = b'"placements":[]'
"""In the answer of a service that had no time, or is broken: in the market of a run everybody finds ads."""
WARM_UP = 0.25
"""So much of the time is not counted: the limit of a server that is overloaded all of a sudden has yet to be found."""


class Side(NamedTuple):
    """What was asked beside the slots, at a steady rate: the answers' bodies, and the p99 of their latencies."""

    bodies: list[bytes]
    p99_ms: float


class Offered(NamedTuple):
    """`good_per_s` are answers with ads within the deadline; the latencies are those of all answers with ads. `refused` is the share of
    those without, `given_up` counts requests that found no free connection in time."""

    sent_per_s: float
    good_per_s: float
    p50_ms: float
    p99_ms: float
    refused: float
    given_up: int
    busy: float
    side: Side


async def offer(
    port: int,
    requests: Sequence[bytes],
    *,
    per_s: float,
    seconds: float,
    seed: int = 1,
    side: Sequence[bytes] = (),
) -> Offered:
    """Sends `requests` in turn, `per_s` of them with the gaps of independent callers, and each of `side` once, evenly over
    the same time. Raises LoadError."""
    cpu_s = time.process_time()
    chance = random.Random(seed)  # noqa: S311 - chance that can be repeated
    gaps_s = (chance.expovariate(per_s) for _ in itertools.count())
    slots = _Stream(itertools.cycle(requests), gaps_s, DEADLINE_S)
    beside = _Stream(iter(side), itertools.repeat(seconds / (len(side) + 1)), PATIENCE_S)
    streams = [slots, beside] if side else [slots]
    try:
        await slots.open(port, CONNECTIONS)
        await beside.open(port, SIDE_CONNECTIONS if side else 0)
        started_s = time.perf_counter()
        for stream in streams:
            stream.begin(started_s)
        await _run(streams, started_s + seconds)
    finally:
        slots.close()
        beside.close()
    return _summed_up(slots, beside, started_s, seconds, time.process_time() - cpu_s)


class _Answer(NamedTuple):
    due_s: float
    latency_s: float
    body: bytes


class _Stream:
    """One kind of requests, each due at its moment and sent over the next free connection."""

    def __init__(self, requests: Iterator[bytes], gaps_s: Iterator[float], patience_s: float) -> None:
        self._requests = requests
        self._gaps_s = gaps_s
        self._patience_s = patience_s
        self.due_at_s = 0.0
        self._due_s: deque[float] = deque()
        self._opened: list[Connection] = []
        self._free: list[Connection] = []
        self._error: LoadError | None = None
        self.sent = 0
        self.given_up = 0
        self.answers: list[_Answer] = []

    async def open(self, port: int, connections: int) -> None:
        self._opened = await connect(port, self, connections)
        self._free = list(self._opened)

    def begin(self, at_s: float) -> None:
        self.due_at_s = at_s + next(self._gaps_s)

    def step(self, now_s: float, ends_s: float) -> None:
        """Sends what is due. Raises what a connection ended with."""
        if self._error is not None:
            raise self._error
        while self.due_at_s <= now_s and self.due_at_s < ends_s:
            self._due_s.append(self.due_at_s)
            self.due_at_s += next(self._gaps_s)
        while self._due_s and now_s - self._due_s[0] > self._patience_s:
            self._due_s.popleft()
            self.given_up += 1
        while self._due_s and self._free:
            request = next(self._requests, None)
            due_s = self._due_s.popleft()
            if request is not None:
                self._free.pop().send(numbered(request), due_s)
                self.sent += 1

    @property
    def waits(self) -> bool:
        return len(self._free) < len(self._opened) or bool(self._due_s)

    def answered(self, connection: Connection, body: bytes, now_s: float) -> None:
        self.answers.append(_Answer(connection.since_s, now_s - connection.since_s, body))
        self._free.append(connection)

    def failed(self, error: LoadError) -> None:
        self._error = error

    def close(self) -> None:
        for connection in self._opened:
            connection.abort()


async def _run(streams: Sequence[_Stream], ends_s: float) -> None:
    now_s = time.perf_counter()
    while now_s < ends_s or any(stream.waits for stream in streams):
        if now_s > ends_s + PATIENCE_S:
            raise LoadError("the answers do not come to an end")
        for stream in streams:
            stream.step(now_s, ends_s)
        if all(stream.due_at_s > now_s + PAUSE_S for stream in streams):
            time.sleep(PAUSE_S)  # noqa: ASYNC251 - as PAUSE_S says
        await asyncio.sleep(0)
        now_s = time.perf_counter()


def _summed_up(slots: _Stream, beside: _Stream, started_s: float, seconds: float, cpu_s: float) -> Offered:
    counted = [answer for answer in slots.answers if answer.due_s >= started_s + WARM_UP * seconds]
    decided_s = sorted(answer.latency_s for answer in counted if NO_AD not in answer.body)
    waited_s = decided_s or [PATIENCE_S]  # nobody was served, however long they waited
    return Offered(
        sent_per_s=(slots.sent + slots.given_up) / seconds,
        good_per_s=sum(one_s <= DEADLINE_S for one_s in decided_s) / (seconds * (1 - WARM_UP)),
        p50_ms=quantile(waited_s, 0.5) * SECOND_MS,
        p99_ms=quantile(waited_s, 0.99) * SECOND_MS,
        refused=1 - len(decided_s) / max(1, len(counted)),
        given_up=slots.given_up,
        busy=cpu_s / seconds,
        side=_side(beside),
    )


def _side(stream: _Stream) -> Side:
    latencies_s = sorted(answer.latency_s for answer in stream.answers)
    p99_ms = quantile(latencies_s, 0.99) * SECOND_MS if latencies_s else 0.0
    return Side([answer.body for answer in stream.answers], p99_ms)
