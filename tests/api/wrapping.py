"""The wrapper between a scripted upstream and scripted decisions."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple
from uuid import UUID

import aiohttp
import orjson
from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy
from waiting import PATIENCE_MS

from adserve.access.keys import Scope
from adserve.api.feed import Bounds, Feed
from adserve.api.upstream import Upstream
from adserve.domain.ids import DecisionId
from adserve.domain.slots import Ask, NoFill, Viewer
from adserve.selection.decision import Decision, Placement
from adserve.web.operations import add_routes
from adserve.web.problems import UNAUTHENTICATED, Problem, problems

Answer = Callable[[], Awaitable[Decision]]

KEY = "feed-key"
OURS = {"X-Adserve-Key": KEY, "X-Adserve-Viewer": "u-1"}
JSON = "Content-Type: application/json"
BODY = b'{ "version": 1.0, "items": [ {"id": "s1", "author": "a1"} ,\n{"id":"s2","author":"a2"}, 1e400 ] }'
ADDED_BY_THIS_HOP = {"date", "server", "connection", "transfer-encoding"}
BODY_MAX_BYTES = 100_000


class SlotsTwin:
    """Answers ads at `positions`; `instead` replaces the answer."""

    def __init__(self) -> None:
        self.positions: Sequence[int] = (1,)
        self.asked: list[Ask] = []
        self.instead: Answer | None = None

    async def answer(self, ask: Ask) -> Decision:
        self.asked.append(ask)
        if self.instead is not None:
            return await self.instead()
        placements = tuple(Placement(position, None, None, "sealed") for position in self.positions)
        return Decision(DecisionId(UUID(int=0)), placements, None if placements else NoFill.NO_ELIGIBLE_AD)


class AuthTwin:
    def authorise(self, secret: str, scopes: Collection[Scope]) -> None:
        if secret != KEY or Scope.FEED not in scopes:
            raise Problem(UNAUTHENTICATED)


class UpstreamTwin:
    """Writes `wire`, byte for byte, for every request and keeps the requests' heads."""

    server: asyncio.Server

    def __init__(self) -> None:
        self.heads: list[bytes] = []
        self.wire: Sequence[bytes | asyncio.Event] = ()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self.heads.append(await reader.readuntil(b"\r\n\r\n"))
            for part in self.wire:
                if isinstance(part, asyncio.Event):
                    await part.wait()
                else:
                    writer.write(part)
                    await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def answers(self, body: bytes, *headers: str, status: str = "200 OK") -> None:
        self.wire = (head(f"Content-Length: {len(body)}", *headers, status=status), body)


def head(*headers: str, status: str = "200 OK") -> bytes:
    return "\r\n".join((f"HTTP/1.1 {status}", *headers, "", "")).encode()


class World:
    def __init__(
        self, slots: SlotsTwin, upstream: UpstreamTwin, url: str, client: aiohttp.ClientSession
    ) -> None:
        self.slots = slots
        self.upstream = upstream
        self.url = url
        self.client = client

    async def get(
        self, path: str = "status", method: str = "GET", **headers: str
    ) -> tuple[int, CIMultiDictProxy[str], bytes]:
        sent = OURS | {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.client.request(
            method, self.url + path, headers=sent, allow_redirects=False
        ) as answer:
            return answer.status, answer.headers, await answer.read()

    async def raw(self, request: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(self.url.split(":")[2].split("/")[0]))
        try:
            writer.write(request)
            return await reader.read()
        finally:
            writer.close()


class Held(NamedTuple):
    """An upstream's answer, as far as the wrapper looks at one that takes ads."""

    headers: CIMultiDictProxy[str]
    content: asyncio.StreamReader
    status: int = 200
    reason: str = "OK"


class HeldUpstream:
    """Has its next answer in memory: without sockets, ten thousand take a second or two."""

    answer: Held

    def holds(self, body: bytes, **headers: str) -> None:
        content = asyncio.StreamReader()
        content.feed_data(body)
        content.feed_eof()
        content.readany = lambda: content.read(1 << 20)
        told = CIMultiDict({"Content-Type": "application/json"} | headers)
        self.answer = Held(CIMultiDictProxy(told), content)

    @asynccontextmanager
    async def fetch(self, _request: web.Request) -> AsyncIterator[Held]:
        yield self.answer


def feed_of(upstream: Upstream, slots: SlotsTwin, auth: AuthTwin, deadline_ms: int = PATIENCE_MS) -> Feed:
    return Feed(
        upstream,
        slots,
        auth,
        viewer=lambda raw: Viewer(raw, b"c" * 16, b"l" * 16),
        encode=encode,
        wrapped=lambda _ask, _seconds: None,
        surface="status",
        bounds=Bounds(deadline_ms, body_max_bytes=BODY_MAX_BYTES, items_max=1_000),
    )


@asynccontextmanager
async def wrapper(session: aiohttp.ClientSession, deadline_ms: int = PATIENCE_MS) -> AsyncIterator[World]:
    slots, twin = SlotsTwin(), UpstreamTwin()
    twin.server = await asyncio.start_server(twin.serve, "127.0.0.1", 0)
    auth = AuthTwin()
    upstream = Upstream(session, f"http://127.0.0.1:{twin.server.sockets[0].getsockname()[1]}/base/")
    feed = feed_of(upstream, slots, auth, deadline_ms)
    app = web.Application(middlewares=[problems])
    add_routes(app.router, feed.operations(), auth, body_max_bytes=1_000)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    client = aiohttp.ClientSession(auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar())
    try:
        async with session, client:
            yield World(slots, twin, f"http://127.0.0.1:{runner.addresses[0][1]}/v1/feed/", client)
    finally:
        await runner.cleanup()
        twin.server.close()
        await twin.server.wait_closed()


def encode(placement: Placement) -> bytes:
    return orjson.dumps({"position": placement.position, "ticket": "🎫 to cut out"})


def without_ads(body: bytes) -> bytes:
    ad = re.compile('{"type":"ad","position":\\d+,"ticket":"🎫 to cut out"}'.encode())
    while (found := ad.search(body)) is not None:
        begin, end = found.span()
        if body[begin - 1 : begin] == b",":
            begin -= 1
        elif body[end : end + 1] == b",":
            end += 1
        body = body[:begin] + body[end:]
    return body


def end_to_end(headers: CIMultiDictProxy[str]) -> list[tuple[str, str]]:
    return [
        pair for name, value in headers.items() if (pair := (name.lower(), value))[0] not in ADDED_BY_THIS_HOP
    ]


def pairs(lines: list[str]) -> list[tuple[str, str]]:
    return [(name.lower(), value) for name, value in (line.split(": ", 1) for line in lines)]
