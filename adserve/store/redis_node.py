"""One connection to one Redis. The commands of a turn of the event loop leave together, a few at a time; replies come in their order.

redis-py's own pipelines and parser cost several times what a command may cost us here, so only its topology and URL
tools are used: commands are packed and replies read by hiredis.
"""

import asyncio
import hashlib
import math
import ssl
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from string import Template
from typing import Any, NamedTuple, cast

import hiredis

from adserve.domain.facts import EXPOSURE_WINDOW_MS
from adserve.limits.counters import ENTRIES_MAX, OPEN_MAX, CountersAway
from adserve.limits.rules import GRACE_MS, RETENTION_MS

CALLS_WAITING_MAX = 10_000
CALLS_TOGETHER = 4
"""So many leave at once: it goes on with these while the next are made, and a write costs as much as some calls."""
CONNECT_S = 2.0
CONNECT_MS = round(CONNECT_S * 1_000)
SILENT_S = 0.1
"""A node that has said nothing for so long, not to anybody, when a call expires is in trouble; one that is slow, or waits for a busy
core, is not."""

_OF_ONE_CALL = ("ASK ", "TRYAGAIN ", "ERR user_function")
"""How errors begin that say nothing of a node's other viewers: a slot that is being moved, a value that cannot be read."""

_NOTHING_YET = object()


def _ignore(_trouble: str) -> None:
    """Nobody listens to a connection that was closed on purpose."""


def _library() -> tuple[str, str]:
    """The name and text of the functions: another text has another name, so that two versions may be loaded at once."""
    text = Template((Path(__file__).parent / "lua" / "counters.lua").read_text(encoding="utf-8"))
    limits = {
        "grace_ms": GRACE_MS,
        "retention_ms": RETENTION_MS,
        "exposure_ms": EXPOSURE_WINDOW_MS,
        "open_max": OPEN_MAX,
        "entries_max": ENTRIES_MAX,
    }
    name = "adserve_" + hashlib.sha256(text.substitute(library="", **limits).encode()).hexdigest()[:12]
    return name, text.substitute(library=name, **limits)


LIBRARY, LIBRARY_TEXT = _library()


class Address(NamedTuple):
    host: str
    port: int


class Login(NamedTuple):
    """What every node of a URL is connected with."""

    username: str | None = None
    password: str | None = None
    database: int = 0
    tls: bool = False


class Node(asyncio.Protocol):
    """`identity` is of the running server that this connection leads to: another one, or the same after it was
    another's replica or has evicted keys, has another. `token_key` and `token` are what every call names."""

    def __init__(self, address: Address, on_trouble: Callable[[str], None]) -> None:
        self.address = address
        self.identity = b""
        self.token_key = b""
        self.token = b""
        self.alive = False
        self._on_trouble = on_trouble
        self._loop = asyncio.get_running_loop()
        self._heard_s = 0.0
        self._reader = hiredis.Reader(notEnoughData=_NOTHING_YET)
        self._transport: asyncio.WriteTransport | None = None
        self._leaving: list[bytes] = []
        self._waiting: deque[tuple[asyncio.Future[Any], float, float]] = deque()
        """With when each left, and how long it may take."""
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due_s = 0.0

    def call(self, command: tuple[bytes | str | int, ...], wait_ms: int) -> asyncio.Future[Any]:
        """The reply, or within `wait_ms` a TimeoutError; CountersAway when the node cannot give one."""
        if not self.alive or len(self._waiting) >= CALLS_WAITING_MAX:
            raise CountersAway(f"redis at {self.address.host}:{self.address.port} cannot be asked")
        reply: asyncio.Future[Any] = self._loop.create_future()
        if not self._leaving:
            self._loop.call_soon(self._flush)
        self._leaving.append(hiredis.pack_command(command))  # type: ignore[arg-type]  # the stub means a tuple of one
        now_s = time.monotonic()  # the loop's own clock stands still for the length of a turn
        due_s = now_s + wait_ms / 1_000
        self._waiting.append((reply, now_s, due_s))
        self._expire_at(due_s)
        if len(self._leaving) == CALLS_TOGETHER:
            self._flush()
        return reply

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)  # uvloop's own are not of the class
        self._transport.set_write_buffer_limits(0)  # or uvloop would wait for the end of the turn
        self.alive = True

    def data_received(self, data: bytes) -> None:
        self._heard_s = time.monotonic()
        self._reader.feed(data)
        while self.alive and (reply := self._reader.gets()) is not _NOTHING_YET:
            waiting, _, _ = self._waiting.popleft()
            if isinstance(reply, hiredis.ReplyError):
                if not str(reply).startswith(_OF_ONE_CALL):
                    self._on_trouble(str(reply))
                if not waiting.done():
                    waiting.set_exception(CountersAway(f"redis: {reply}"))
            elif not waiting.done():
                waiting.set_result(reply)

    def connection_lost(self, error: Exception | None) -> None:
        on_trouble = self._on_trouble
        self.close()
        on_trouble(f"connection lost: {error or 'closed'}")

    def close(self) -> None:
        self.alive = False
        self._on_trouble = _ignore
        if self._transport is not None:
            self._transport.abort()
        if self._timer is not None:
            self._timer.cancel()
        for waiting, _, _ in self._waiting:
            if not waiting.done():
                waiting.set_exception(CountersAway("the connection to redis was lost"))
                waiting.exception()  # whoever awaited it may have left
        self._waiting.clear()

    def _flush(self) -> None:
        leaving, self._leaving = self._leaving, []
        if leaving and self.alive and self._transport is not None:
            self._transport.write(b"".join(leaving))

    def _expire_at(self, due_s: float) -> None:
        """One timer for all calls: nearly all of them are answered long before it goes off."""
        if self._timer is None or due_s < self._timer_due_s:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_due_s = due_s
            self._timer = self._loop.call_later(due_s - time.monotonic(), self._expire)

    def _expire(self) -> None:
        self._timer = None
        now_s = time.monotonic() + 0.001
        soonest_s = math.inf
        for reply, _, due_s in self._waiting:
            if reply.done():
                continue
            if due_s <= now_s:
                reply.set_exception(TimeoutError("redis takes too long"))
            elif due_s < soonest_s:
                soonest_s = due_s
        if soonest_s < math.inf:
            self._expire_at(soonest_s)
        oldest_s = self._waiting[0][1] if self._waiting else now_s
        if self.alive and now_s - max(oldest_s, self._heard_s) >= SILENT_S:
            self._on_trouble("does not answer")


async def open_node(address: Address, login: Login, on_trouble: Callable[[str], None]) -> Node:
    """A connection that is logged in. Raises CountersAway."""
    node = Node(address, on_trouble)
    try:
        async with asyncio.timeout(CONNECT_S):
            await asyncio.get_running_loop().create_connection(
                lambda: node, *address, ssl=ssl.create_default_context() if login.tls else None
            )
            if login.password is not None:
                user = () if login.username is None else (login.username,)
                await node.call(("AUTH", *user, login.password), CONNECT_MS)
            if login.database:
                await node.call(("SELECT", login.database), CONNECT_MS)
    except BaseException as error:
        node.close()
        if isinstance(error, (OSError, CountersAway)):
            raise _away(address, error) from error
        raise
    return node


async def open_master(address: Address, login: Login, on_trouble: Callable[[str], None]) -> Node:
    """A node that may count, that knows our functions, and of which we know who it is. Raises CountersAway."""
    node = await open_node(address, login, on_trouble)
    try:
        node.identity = await identity_of(node)
        if not await node.call(("FUNCTION", "LIST", "LIBRARYNAME", LIBRARY), CONNECT_MS):
            await node.call(("FUNCTION", "LOAD", "REPLACE", LIBRARY_TEXT), CONNECT_MS)
    except BaseException as error:
        node.close()
        if isinstance(error, (TimeoutError, CountersAway)):
            raise _away(address, error) from error
        raise
    return node


def _away(address: Address, error: Exception) -> CountersAway:
    return CountersAway(f"redis at {address.host}:{address.port}: {error or type(error).__name__}")


async def identity_of(node: Node) -> bytes:
    """Raises CountersAway for a server that may lose what it was told: a replica, or one that evicts keys."""
    said = await node.call(("INFO",), CONNECT_MS)
    facts = dict(line.split(b":", 1) for line in said.splitlines() if b":" in line)
    if facts[b"role"] != b"master":
        raise CountersAway("it is a replica")
    if facts[b"maxmemory"] != b"0" and facts[b"maxmemory_policy"] != b"noeviction":
        raise CountersAway(f"its maxmemory-policy is {facts[b'maxmemory_policy'].decode()}: set noeviction")
    return b"%b:%b:%b" % (facts[b"run_id"], facts[b"master_replid"], facts[b"evicted_keys"])
