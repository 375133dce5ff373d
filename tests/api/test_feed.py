import asyncio
import gzip
import json
import os
import re
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import aiohttp
import pytest
from aiohttp import web
from multidict import CIMultiDictProxy

from adserve.api.feed import Bounds, Feed
from adserve.api.upstream import Upstream, open_session
from adserve.domain.ids import DecisionId
from adserve.domain.slots import Ask, Context, NoFill, Viewer
from adserve.selection.decision import Decision, Placement

RawFeed = Callable[[int], tuple[bytes, tuple[str | None, ...]]]
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
        placements = tuple(Placement(position, None, None, "sealed") for position in self.positions)  # type: ignore[arg-type]
        return Decision(DecisionId(UUID(int=0)), placements, None if placements else NoFill.NO_ELIGIBLE_AD)


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


@asynccontextmanager
async def wrapper(session: aiohttp.ClientSession) -> AsyncIterator[World]:
    slots, twin = SlotsTwin(), UpstreamTwin()
    twin.server = await asyncio.start_server(twin.serve, "127.0.0.1", 0)
    feed = Feed(
        Upstream(session, f"http://127.0.0.1:{twin.server.sockets[0].getsockname()[1]}/base/"),
        slots,
        authorise=authorise,
        viewer=lambda raw: Viewer(raw, b"c" * 16, b"l" * 16),
        encode=encode,
        surface="status",
        bounds=Bounds(deadline_ms=30, body_max_bytes=BODY_MAX_BYTES, items_max=1_000),
    )
    app = web.Application()
    app.router.add_get("/v1/feed/{path:.*}", feed.get)
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


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with wrapper(open_session(timeout_ms=300)) as world:
        yield world


def authorise(key: str) -> None:
    if key != KEY:
        raise web.HTTPUnauthorized


def encode(placement: Placement) -> dict[str, Any]:
    return {"position": placement.position, "ticket": "🎫 to cut out"}


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


@pytest.mark.slow
async def test_ten_thousand_feeds_with_ads_hold_the_upstreams_bytes(world: World, raw_feed: RawFeed) -> None:
    for seed in range(10_000):
        body, authors = raw_feed(seed)
        world.slots.positions = sorted({0, len(authors) // 2, len(authors)})
        if seed % 2:
            world.upstream.answers(gzip.compress(body, 1), JSON, "Content-Encoding: gzip")
        else:
            world.upstream.answers(body, JSON)
        _, headers, answered = await world.get()
        assert "Content-Encoding" not in headers
        assert answered.count(b'{"type":"ad"') == len(world.slots.positions)
        assert without_ads(answered) == body
        assert world.slots.asked.pop().authors == authors


async def test_an_ad_stands_at_its_position(world: World) -> None:
    world.upstream.answers(BODY, JSON)
    status, headers, body = await world.get()
    assert status == 200
    assert json.loads(body)["items"][1] == {"type": "ad", "position": 1, "ticket": "🎫 to cut out"}
    assert without_ads(body) == BODY
    assert headers["Content-Length"] == str(len(body))


async def test_headers_that_ads_make_untrue_are_dropped_and_all_others_kept(world: World) -> None:
    kept = ["Set-Cookie: a=1", "Set-Cookie: b=2", "Vary: Accept", "X-Feed: é", JSON]
    untrue = [
        'ETag: "1"',
        "Content-MD5: x",
        "Digest: x",
        "Content-Digest: x",
        "Repr-Digest: x",
        "Accept-Ranges: bytes",
    ]
    stale = ["Last-Modified: Mon, 23 Nov 2026 05:48:24 GMT", "Cache-Control: public, max-age=60"]
    world.upstream.answers(BODY, *kept, *untrue, *stale)
    _, headers, body = await world.get()
    assert end_to_end(headers) == [
        *pairs(kept),
        ("cache-control", "private, no-store"),
        ("content-length", str(len(body))),
    ]


async def test_the_question_is_what_feed_and_headers_say(world: World) -> None:
    world.upstream.answers(BODY, JSON)
    context = '{"country": "ID", "age": 27, "interests": ["music"], "of_a_later_release": [1]}'
    await world.get(X_Adserve_Context=context, X_Adserve_Consent='{"personalised": true}')
    assert world.slots.asked == [
        Ask(
            viewer=Viewer("u-1", b"c" * 16, b"l" * 16),
            surface="status",
            feed_length=3,
            authors=("a1", "a2", None),
            max_ads=3,
            context=Context(country="ID", age=27, interests=("music",)),
            personalised=True,
        )
    ]


GZIPPED = gzip.compress(BODY)
PASSING = [
    pytest.param("200 OK", [JSON], os.urandom(3_000), id="random bytes"),
    pytest.param("200 OK", [JSON], b"", id="empty"),
    pytest.param("200 OK", [JSON], b'{"items": {"0": 1}}', id="wrong type"),
    pytest.param("200 OK", [JSON], b'{"items":[1],"items":[2]}', id="repeated items"),
    pytest.param("200 OK", [JSON], b"\xef\xbb\xbf" + BODY, id="byte order mark"),
    pytest.param("200 OK", ["Content-Type: text/html"], BODY, id="html"),
    pytest.param("200 OK", [JSON + "; charset=latin-1"], BODY, id="charset"),
    pytest.param("200 OK", [JSON, "Content-Encoding: br"], BODY, id="unknown encoding"),
    pytest.param(
        "200 OK", [JSON, "Content-Encoding: gzip, gzip"], gzip.compress(GZIPPED), id="two encodings"
    ),
    pytest.param("200 OK", [JSON, "Content-Encoding: gzip"], BODY, id="not gzip"),
    pytest.param("200 OK", [JSON, "Content-Encoding: gzip"], GZIPPED[:-9], id="truncated gzip"),
    pytest.param("200 OK", [JSON, "Content-Encoding: gzip"], GZIPPED + b"x", id="bytes after gzip"),
    pytest.param("200 OK", [JSON, "Content-Encoding: gzip"], zlib.compress(BODY), id="deflate named gzip"),
    pytest.param(
        "200 OK",
        [JSON, "Content-Encoding: gzip"],
        gzip.compress(BODY.replace(b"1e400", b'"%b"' % (b"0" * 50_000_000))),
        id="decompression bomb",
    ),
    pytest.param("200 OK", [JSON], b'{"items":["' + b"x" * 5_000_000 + b'"]}', id="too large"),
    pytest.param("201 Created", [JSON], BODY, id="201"),
    pytest.param("206 Partial Content", [JSON, "Content-Range: bytes 0-98/200"], BODY, id="206"),
    pytest.param("302 Found", [JSON, "Location: http://elsewhere.example/feed"], BODY, id="redirect"),
    pytest.param("404 Not Found", [JSON], BODY, id="404"),
    pytest.param("503 Slow Down", [JSON, "Retry-After: 1"], BODY, id="503"),
]


@pytest.mark.parametrize(("status", "headers", "body"), PASSING)
async def test_anything_else_passes_untouched(
    world: World, status: str, headers: list[str], body: bytes
) -> None:
    lines = [*headers, 'ETag: "1"', "Set-Cookie: a=1", "Set-Cookie: b=2", "Cache-Control: max-age=60"]
    world.upstream.answers(body, *lines, status=status)
    async with world.client.get(world.url + "status", headers=OURS, allow_redirects=False) as answer:
        assert f"{answer.status} {answer.reason}" == status
        assert end_to_end(answer.headers) == [
            ("content-length", str(len(body))),
            *pairs(lines),
        ]
        assert await answer.read() == body
    assert world.slots.asked == []


async def test_head_passes_with_the_upstreams_length(world: World) -> None:
    world.upstream.wire = (head(JSON, "Content-Length: 12345", 'ETag: "1"'),)
    status, headers, body = await world.get(method="HEAD")
    assert (status, headers["Content-Length"], headers["ETag"], body) == (200, "12345", '"1"', b"")
    assert world.upstream.heads[0].startswith(b"HEAD ")
    assert world.slots.asked == []


async def test_a_conditional_request_is_the_upstreams_to_answer(world: World) -> None:
    world.upstream.wire = (head('ETag: "1"', status="304 Not Modified"),)
    status, headers, body = await world.get(If_None_Match='"1"', Range="bytes=0-5")
    assert (status, headers["ETag"], body) == (304, '"1"', b"")
    assert b'If-None-Match: "1"\r\nRange: bytes=0-5\r\n' in world.upstream.heads[0]


async def test_a_chunked_feed_takes_ads(world: World) -> None:
    chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
    world.upstream.wire = (head(JSON, "Transfer-Encoding: chunked"), chunks)
    _, headers, body = await world.get()
    assert without_ads(body) == BODY
    assert headers["Content-Length"] == str(len(body))


async def fails() -> Decision:
    raise RuntimeError("the decision failed")


async def hangs() -> Decision:
    await asyncio.Event().wait()
    raise AssertionError


async def misplaces() -> Decision:
    return Decision(DecisionId(UUID(int=0)), (Placement(4, None, None, "sealed"),), None)  # type: ignore[arg-type]


@pytest.mark.parametrize("instead", [fails, hangs, misplaces])
@pytest.mark.parametrize("encoding", ["identity", "gzip"])
async def test_on_a_fault_of_ours_the_feed_passes_unchanged(
    world: World, instead: Answer, encoding: str
) -> None:
    world.slots.instead = instead
    body = BODY if encoding == "identity" else GZIPPED
    world.upstream.answers(body, JSON, f"Content-Encoding: {encoding}", 'ETag: "1"')
    began = asyncio.get_running_loop().time()
    status, headers, answered = await world.get()
    assert asyncio.get_running_loop().time() - began < 0.5
    assert len(world.slots.asked) == 1
    assert (status, answered) == (200, body)
    assert end_to_end(headers) == [
        ("content-length", str(len(body))),
        ("content-type", "application/json"),
        ("content-encoding", encoding),
        ("etag", '"1"'),
    ]


@pytest.mark.parametrize(
    "headers",
    [
        {"X_Adserve_Viewer": ""},
        {"X_Adserve_Context": "{"},
        {"X_Adserve_Context": '{"age": "old"}'},
        {"X_Adserve_Consent": '{"personalised": 1}'},
    ],
)
async def test_without_a_viewer_or_with_a_bad_context_the_feed_passes(
    world: World, headers: dict[str, str]
) -> None:
    world.upstream.answers(BODY, JSON)
    status, _, body = await world.get(**headers)
    assert (status, body, world.slots.asked) == (200, BODY, [])


async def test_no_ads_leave_the_feed_as_it_was(world: World) -> None:
    world.slots.positions = ()
    world.upstream.answers(GZIPPED, JSON, "Content-Encoding: gzip")
    _, headers, body = await world.get()
    assert (headers["Content-Encoding"], body) == ("gzip", GZIPPED)


async def test_the_request_goes_on_as_it_came_without_what_is_ours(world: World) -> None:
    world.upstream.answers(BODY, JSON)
    theirs = b"Authorization: Bearer theirs\r\nCookie: a=1\r\nX-Many: 1\r\nX-Many: 2\r\nAccept-Encoding: gzip, br\r\n"
    ours = (
        b"x-adserve-key: feed-key\r\nX-ADSERVE-VIEWER: u-1\r\nX-Adserve-Context: {}\r\nX-Adserve-New: 1\r\n"
    )
    hop = b"Connection: close, X-Secret\r\nX-Secret: 1\r\nTE: trailers\r\nProxy-Authorization: p\r\nUpgrade: h2c\r\n"
    target = b"/v1/feed//a%2Fb/%e9%C3%A9;v=1?x=%20+&y=a%2fb&x=%20+&z=%2e%2e/"
    await world.raw(b"GET " + target + b" HTTP/1.1\r\nHost: us.example\r\n" + theirs + ours + hop + b"\r\n")
    request_line, host, *rest = world.upstream.heads[0].split(b"\r\n", 2)
    assert request_line == b"GET /base/" + target.removeprefix(b"/v1/feed/") + b" HTTP/1.1"
    assert re.fullmatch(rb"Host: 127\.0\.0\.1:\d+", host)
    assert rest == [theirs + b"\r\n"]


@pytest.mark.parametrize(
    "path",
    ["..", "../x", "a/../../x", "%2e%2e/x", "a%2f%2E.%2fx", "a\\..\\x", "a%5c..%5cx", "a/..;x/y", "a#b"],
)
async def test_no_path_leaves_the_base(world: World, path: str) -> None:
    request = f"GET /v1/feed/{path} HTTP/1.1\r\nHost: x\r\nX-Adserve-Key: {KEY}\r\nConnection: close\r\n\r\n"
    answer = await world.raw(request.encode())
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 404 "))
    assert world.upstream.heads == []


@pytest.mark.parametrize(
    "length", ["Content-Length: 2\r\n\r\n{}", "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"]
)
async def test_a_request_with_a_body_is_refused(world: World, length: str) -> None:
    request = f"GET /v1/feed/x HTTP/1.1\r\nHost: x\r\nX-Adserve-Key: {KEY}\r\nConnection: close\r\n{length}"
    assert (await world.raw(request.encode())).startswith(b"HTTP/1.1 400 ")
    assert world.upstream.heads == []


@pytest.mark.parametrize("key", ["", "another"])
async def test_without_the_key_nothing_reaches_the_upstream(world: World, key: str) -> None:
    assert (await world.get(X_Adserve_Key=key))[0] == 401
    assert world.upstream.heads == []


async def test_only_get_and_head(world: World) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        assert (await world.get(method=method))[0] == 405


async def test_an_upstream_that_hangs_up_is_a_bad_gateway(world: World) -> None:
    for world.upstream.wire in ((), (b"nonsense\r\n\r\n",), (head("Content-Length: 500", JSON), BODY)):
        assert (await world.get())[0] == 502


async def test_an_upstream_that_is_not_there_is_a_bad_gateway(world: World) -> None:
    world.upstream.server.close()
    assert (await world.get())[0] == 502


async def test_an_upstream_that_says_nothing_is_a_gateway_timeout(world: World) -> None:
    for parts in ((), (head("Content-Length: 500", JSON), BODY)):
        forever = asyncio.Event()
        world.upstream.wire = (*parts, forever)
        assert (await world.get())[0] == 504
        forever.set()


async def test_a_large_body_is_streamed(world: World) -> None:
    first, last, go_on = b"x" * (BODY_MAX_BYTES + 1), b"y" * 1_000, asyncio.Event()
    world.upstream.wire = (head(JSON, f"Content-Length: {len(first + last)}"), first, go_on, last)
    async with world.client.get(world.url + "status", headers=OURS) as answer:
        assert await answer.content.readexactly(len(first)) == first
        go_on.set()
        assert await answer.content.read() == last


@pytest.mark.parametrize("length", ["Content-Length: 200000", "Transfer-Encoding: chunked"])
async def test_a_stream_that_breaks_off_does_not_look_whole(world: World, length: str) -> None:
    part = b"x" * (BODY_MAX_BYTES + 1)
    body = part if "Length" in length else b"%x\r\n%b\r\n" % (len(part), part)
    world.upstream.wire = (head("Content-Type: text/plain", length), body)
    with pytest.raises(aiohttp.ClientError):
        await world.get()


async def second_request_head(session: aiohttp.ClientSession) -> bytes:
    async with wrapper(session) as world:
        world.upstream.answers(BODY, JSON, "Set-Cookie: session=of-the-first-viewer; Path=/")
        await world.get()
        await world.get()
        return world.upstream.heads[1]


async def test_a_viewers_cookies_are_not_sent_for_the_next() -> None:
    assert b"Cookie" not in await second_request_head(open_session(timeout_ms=300))


async def test_control_another_session_would_send_them() -> None:
    session = aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True), auto_decompress=False)
    assert b"Cookie: session=of-the-first-viewer" in await second_request_head(session)
