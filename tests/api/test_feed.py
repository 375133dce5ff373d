import asyncio
import gzip
import json
import os
import zlib
from collections.abc import Callable
from types import SimpleNamespace
from uuid import UUID

import pytest
from waiting import PATIENCE_MS
from wrapping import (
    BODY,
    JSON,
    KEY,
    OURS,
    Answer,
    AuthTwin,
    HeldUpstream,
    SlotsTwin,
    World,
    end_to_end,
    feed_of,
    head,
    pairs,
    without_ads,
)

from adserve.api.slots import ADS_ASKED_MAX, Context
from adserve.domain.ids import DecisionId
from adserve.domain.slots import Ask, Viewer
from adserve.selection.decision import Decision, Placement

RawFeed = Callable[[int], tuple[bytes, tuple[str | None, ...]]]


async def test_ten_thousand_feeds_with_ads_hold_the_upstreams_bytes(raw_feed: RawFeed) -> None:
    upstream, slots = HeldUpstream(), SlotsTwin()
    feed = feed_of(upstream, slots, AuthTwin())
    call = SimpleNamespace(request=SimpleNamespace(method="GET", headers=OURS))
    for seed in range(10_000):
        body, authors = raw_feed(seed)
        slots.positions = sorted({0, len(authors) // 2, len(authors)})
        if seed % 2:
            upstream.holds(gzip.compress(body, 1), **{"Content-Encoding": "gzip"})
        else:
            upstream.holds(body)
        answer = await feed.answer(call)
        assert "Content-Encoding" not in answer.headers
        assert answer.body.count(b'{"type":"ad"') == len(slots.positions)
        assert without_ads(answer.body) == body
        assert slots.asked.pop().authors == authors


async def test_feeds_hold_the_upstreams_bytes_on_the_wire(world: World, raw_feed: RawFeed) -> None:
    for seed in range(300):
        body, authors = raw_feed(seed)
        world.slots.positions = sorted({0, len(authors) // 2, len(authors)})
        if seed % 2:
            world.upstream.answers(gzip.compress(body, 1), JSON, "Content-Encoding: gzip")
        else:
            world.upstream.answers(body, JSON)
        _, headers, answered = await world.get()
        assert "Content-Encoding" not in headers
        assert without_ads(answered) == body


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
            deadline_ms=PATIENCE_MS,
            personalised=True,
        )
    ]


async def test_a_long_feed_is_asked_for_no_more_ads_than_a_caller_may_ask_for(world: World) -> None:
    world.upstream.answers(b'{"items":[%b]}' % b",".join([b"{}"] * 200), JSON)
    await world.get()
    assert [(ask.feed_length, ask.max_ads) for ask in world.slots.asked] == [(200, ADS_ASKED_MAX)]


GZIPPED = gzip.compress(BODY)
PASSING = [
    pytest.param("200 OK", [JSON], os.urandom(3_000), id="random bytes"),
    pytest.param("200 OK", [JSON], b"", id="empty"),
    pytest.param("200 OK", [JSON], b'{"items": {"0": 1}}', id="wrong type"),
    pytest.param("200 OK", [JSON], b'{"items":[1],"items":[2]}', id="repeated items"),
    pytest.param("200 OK", [JSON], b"\xef\xbb\xbf" + BODY, id="byte order mark"),
    pytest.param("200 OK", ["Content-Type: text/html"], BODY, id="html"),
    pytest.param("200 OK", [JSON + "; charset=latin-1"], BODY, id="charset"),
    pytest.param("200 OK", [JSON + "; charset*=utf-16''x"], BODY, id="charset that cannot be read"),
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
    return Decision(DecisionId(UUID(int=0)), (Placement(4, None, None, "sealed"),), None)


@pytest.mark.parametrize("instead", [fails, hangs, misplaces])
@pytest.mark.parametrize("encoding", ["identity", "gzip"])
async def test_on_a_fault_of_ours_the_feed_passes_unchanged(
    world_of_hasty_decisions: World, instead: Answer, encoding: str
) -> None:
    world = world_of_hasty_decisions
    world.slots.instead = instead
    body = BODY if encoding == "identity" else GZIPPED
    world.upstream.answers(body, JSON, f"Content-Encoding: {encoding}", 'ETag: "1"')
    async with asyncio.timeout(20):  # of what would be 30 s were the deadline's unit mistaken
        status, headers, answered = await world.get()
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
        {"X_Adserve_Viewer": "v" * 257},
        {"X_Adserve_Context": "{"},
        {"X_Adserve_Context": '{"age": "old"}'},
        {"X_Adserve_Context": '{"country": "*"}'},
        {"X_Adserve_Context": '{"platform": "' + 65 * "x" + '"}'},
        {"X_Adserve_Context": r'{"platform": "\u0000"}'},
        {"X_Adserve_Consent": '{"personalised": 1}'},
    ],
)
async def test_without_a_viewer_or_with_a_bad_context_the_feed_passes(
    world: World, headers: dict[str, str]
) -> None:
    world.upstream.answers(BODY, JSON)
    status, _, body = await world.get(**headers)
    assert (status, body, world.slots.asked) == (200, BODY, [])


async def test_with_a_viewer_that_is_no_text_the_feed_passes(world: World) -> None:
    world.upstream.answers(BODY, JSON)
    answer = await world.raw(
        b"GET /v1/feed/status HTTP/1.0\r\nX-Adserve-Key: %b\r\nX-Adserve-Viewer: u-\xff\r\n\r\n"
        % KEY.encode()
    )
    assert (answer.endswith(BODY), world.slots.asked) == (True, [])


async def test_no_ads_leave_the_feed_as_it_was(world: World) -> None:
    world.slots.positions = ()
    world.upstream.answers(GZIPPED, JSON, "Content-Encoding: gzip")
    _, headers, body = await world.get()
    assert (headers["Content-Encoding"], body) == ("gzip", GZIPPED)
