import asyncio
import json
import re

import aiohttp
import pytest
from waiting import PATIENCE_MS
from wrapping import BODY, BODY_MAX_BYTES, JSON, KEY, OURS, World, head, wrapper

from adserve.api.upstream import open_session


async def problem(world: World, **request: str) -> int:
    status, headers, body = await world.get(**request)
    assert headers["Content-Type"] == "application/problem+json"
    assert json.loads(body)["status"] == status
    return status


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
    status, _, body = await world.get(X_Adserve_Key=key)
    assert (status, b"X-Adserve-Key" in body) == (401, not key)
    assert world.upstream.heads == []


async def test_only_get_and_head(world: World) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        assert await problem(world, method=method) == 405


async def test_an_upstream_that_hangs_up_is_a_bad_gateway(world: World) -> None:
    for world.upstream.wire in ((), (b"nonsense\r\n\r\n",), (head("Content-Length: 500", JSON), BODY)):
        assert await problem(world) == 502


async def test_an_upstream_that_is_not_there_is_a_bad_gateway(world: World) -> None:
    world.upstream.server.close()
    assert await problem(world) == 502


async def test_an_upstream_that_says_nothing_is_a_gateway_timeout(world_without_patience: World) -> None:
    world = world_without_patience
    for parts in ((), (head("Content-Length: 500", JSON), BODY)):
        forever = asyncio.Event()
        world.upstream.wire = (*parts, forever)
        assert await problem(world) == 504
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
    assert b"Cookie" not in await second_request_head(open_session(PATIENCE_MS))


async def test_control_another_session_would_send_them() -> None:
    session = aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True), auto_decompress=False)
    assert b"Cookie: session=of-the-first-viewer" in await second_request_head(session)
