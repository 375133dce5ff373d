"""The gate before a real aiohttp server, on raw sockets: who is refused where, and that the connection stays in order."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from unittest.mock import Mock
from uuid import UUID

import msgspec
import pytest
from aiohttp import web
from waiting import PATIENCE_S, until

from adserve.api.slots import SlotsAnswer
from adserve.domain.slots import NoFill
from adserve.web.gate import Connection, Refusals, answered, length_of
from adserve.web.lane import Lane
from adserve.web.limiter import Limiter

NOW_MS = 1_790_000_000_123
CHANCE = 0x0123456789ABCDEF0123456789ABCDEF


def post(path: str = "/v1/slots", body: bytes = b'{"viewer":"u"}', *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: x", *headers, f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + body


class House:
    """A server that echoes, behind a gate whose limiter the test fills."""

    def __init__(self) -> None:
        self.limiter = Limiter(lambda: 0.0, lambda: 0.0)
        self.port = 0
        self.lines: list[asyncio.StreamWriter] = []
        self.open = asyncio.Event()
        self.open.set()

    def fill(self) -> None:
        while self.limiter.admit():
            pass

    def empty(self) -> None:
        while self.limiter.in_flight:
            self.limiter.finish(0.0)

    async def echo(self, request: web.Request) -> web.Response:
        body = await request.read()
        await self.open.wait()
        response = web.Response(body=request.path.encode() + b" " + body)
        answered(response)
        return response

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.lines.append(writer)
        return reader, writer


@pytest.fixture
async def house() -> AsyncIterator[House]:
    async with serving() as house:
        yield house


@asynccontextmanager
async def serving(slots: Lane | None = None, events: Lane | None = None) -> AsyncIterator[House]:
    house, app = House(), web.Application()
    app.router.add_route("*", "/{path:.*}", house.echo)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    handlers, refusals = runner.server, Refusals(lambda: NOW_MS, lambda: CHANCE)
    assert handlers is not None
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(house.limiter, refusals, slots, events, handlers()), "127.0.0.1", 0
    )
    house.port = server.sockets[0].getsockname()[1]
    try:
        yield house
    finally:
        house.open.set()
        for line in house.lines:
            line.close()
        server.close()
        await runner.cleanup()


async def read(reader: asyncio.StreamReader) -> bytes:
    """The body of the next answer."""
    async with asyncio.timeout(PATIENCE_S):
        head = await reader.readuntil(b"\r\n\r\n")
        assert re.match(rb"HTTP/1.[01] 200 OK\r\n", head), head
        length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        assert length is not None
        return await reader.readexactly(int(length[1]))


def refused(body: bytes) -> bool:
    return body.endswith(b'"no_fill":"overloaded"}')


async def test_what_is_refused_is_answered_as_the_contract_says(house: House) -> None:
    house.fill()
    reader, writer = await house.connect()
    ids = []
    for _ in range(3):
        writer.write(post())
        answer = msgspec.json.decode(await read(reader), type=SlotsAnswer)
        assert (answer.placements, answer.no_fill) == ([], NoFill.OVERLOADED)
        ids.append(UUID(answer.decision))
    assert len(set(ids)) == 3
    assert {(id_.version, id_.variant, id_.int >> 80) for id_ in ids} == {(7, ids[0].variant, NOW_MS)}
    assert ids[0].variant == "specified in RFC 4122"


PLAIN = ("Authorization: Bearer k", "Content-Type: application/json")


def recorder() -> Lane:
    async def record(_key: str, body: bytes, _waited_ms: int) -> bytes | None:
        return b"recorded " + body if body != b"bad" else None

    return Lane(record, lambda: 0.0, lambda: NOW_MS, body_max_bytes=100, count=lambda: None)


async def test_reports_of_events_take_the_short_way_also_in_an_overload() -> None:
    async with serving(events=recorder()) as house:
        house.fill()
        reader, writer = await house.connect()
        for path, body, answer in (
            ("/v1/events", b"e", b"recorded e"),
            ("/v1/events", b"bad", b"/v1/events bad"),
            ("/v1/events?x", b"e", b"/v1/events e"),
            ("/v1/events", b"f", b"recorded f"),
        ):
            writer.write(post(path, body, *PLAIN))
            assert await read(reader) == answer
        writer.write(post())
        assert refused(await read(reader))


@pytest.mark.parametrize(
    ("cuts", "way"),
    [((-60, 0), b"recorded "), ((-50, -20, 0), b"recorded "), ((-60,), b"/v1/events ")],
    ids=["head and body", "three pieces", "another right behind"],
)
async def test_what_comes_in_pieces_takes_the_short_way_once_it_is_whole(
    cuts: tuple[int, ...], way: bytes
) -> None:
    bodies = (b"e" * 60, b"f")
    first, second = (post("/v1/events", body, *PLAIN) for body in bodies)
    both = first + second
    async with serving(events=recorder()) as house:
        reader, writer = await house.connect()
        for begin, end in pairwise((0, *(len(first) + cut for cut in cuts), len(both))):
            writer.write(both[begin:end])
            await asyncio.sleep(0.02)
        assert [await read(reader) for _ in bodies] == [way + body for body in bodies]


async def test_who_does_not_send_the_rest_has_no_place_and_is_aiohttps_before_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("adserve.web.gate.GATHERED_WITHIN_S", 0.05)
    whole = post("/v1/slots", b"body", *PLAIN)
    async with serving(slots=recorder()) as house:
        for rest_after_s, answer in ((0.0, b"recorded body"), (0.1, b"/v1/slots body")):
            reader, writer = await house.connect()
            writer.write(whole[:-2])
            await asyncio.sleep(rest_after_s)
            assert house.limiter.in_flight == 0
            writer.write(whole[-2:])
            assert await read(reader) == answer
        _, writer = await house.connect()
        writer.write(whole[:-2])
        writer.close()


async def test_what_comes_in_pieces_is_refused_too() -> None:
    whole = post("/v1/slots", b"body", *PLAIN)
    async with serving(slots=recorder()) as house:
        house.fill()
        reader, writer = await house.connect()
        writer.write(whole[:-2])
        await asyncio.sleep(0.02)
        writer.write(whole[-2:])
        assert refused(await read(reader))
        house.empty()
        writer.write(whole)
        assert await read(reader) == b"recorded body"


def test_a_request_too_long_for_the_lane_is_aiohttps_from_its_first_byte() -> None:
    house, handler = House(), Mock(asyncio.Protocol)
    connection = Connection(
        house.limiter, Refusals(lambda: NOW_MS, lambda: CHANCE), None, recorder(), handler
    )
    connection.connection_made(Mock(asyncio.Transport))
    begun = post("/v1/events", b"x" * 5_000, *PLAIN)[:-1]
    connection.data_received(begun)
    handler.data_received.assert_called_once_with(begun)


async def test_a_connection_goes_on_after_a_refusal_and_is_refused_again_after_an_answer(
    house: House,
) -> None:
    reader, writer = await house.connect()
    for _ in range(2):
        house.fill()
        writer.write(post())
        assert refused(await read(reader))
        writer.write(post("/v1/events", b"e"))
        assert await read(reader) == b"/v1/events e"
        house.empty()
        writer.write(post())
        assert await read(reader) == b'/v1/slots {"viewer":"u"}'
        assert house.limiter.in_flight == 0


async def test_events_are_never_refused(house: House) -> None:
    house.fill()
    reader, writer = await house.connect()
    writer.write(post("/v1/events", b"e"))
    assert await read(reader) == b"/v1/events e"


async def test_the_body_of_a_refused_request_may_come_late_and_another_request_behind_it(
    house: House,
) -> None:
    house.fill()
    reader, writer = await house.connect()
    whole = post(body=b"x" * 100)
    writer.write(whole[:-60])
    await asyncio.sleep(0.02)
    writer.write(whole[-60:-20])
    await asyncio.sleep(0.02)
    assert not reader._buffer
    writer.write(whole[-20:] + post("/v1/events", b"e"))
    assert refused(await read(reader))
    assert await read(reader) == b"/v1/events e"


async def test_a_request_behind_one_that_is_not_answered_yet_waits_for_its_turn(house: House) -> None:
    house.open.clear()
    reader, writer = await house.connect()
    writer.write(post(body=b"first"))
    await until(lambda: house.limiter.in_flight == 1)
    house.fill()
    writer.write(post(body=b"second"))
    await asyncio.sleep(0.02)
    house.open.set()
    assert await read(reader) == b"/v1/slots first"
    assert await read(reader) == b"/v1/slots second"


@pytest.mark.parametrize(
    "request_",
    [
        post() + post("/v1/events", b"e"),
        post("/v1/slots", b'{"viewer":"u"}', "Connection: close"),
        b"POST /v1/slots HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        b"POST /v1/slots HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}",
        b"GET /v1/slots HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
    ids=["two at once", "close", "chunked", "1.0", "GET"],
)
async def test_what_is_not_plain_is_left_to_aiohttp(house: House, request_: bytes) -> None:
    house.fill()
    reader, writer = await house.connect()
    writer.write(request_)
    assert (await read(reader)).startswith(b"/v1/slots")


async def test_callers_who_leave_make_room(house: House) -> None:
    house.open.clear()
    for _ in range(3):
        _, writer = await house.connect()
        writer.write(post())
    await until(lambda: house.limiter.in_flight == 3)
    for line in house.lines:
        line.close()
    await until(lambda: house.limiter.in_flight == 0)


def test_a_caller_who_does_not_read_is_left_to_aiohttp_which_stops_reading_it() -> None:
    house, handler, transport = House(), Mock(asyncio.Protocol), Mock(asyncio.Transport)
    house.fill()
    connection = Connection(house.limiter, Refusals(lambda: NOW_MS, lambda: CHANCE), None, None, handler)
    connection.connection_made(transport)
    connection.data_received(post())
    assert transport.write.call_count == 1
    connection.pause_writing()
    connection.data_received(post())
    assert transport.write.call_count == 1
    handler.data_received.assert_called_once_with(post())


@pytest.mark.parametrize(
    ("request_", "length"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 18),
        (b"POST / HTTP/1.1\r\nCONTENT-LENGTH:  5 \r\n\r\nabc", 45),
        (b"POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", -1),
        (b"POST / HTTP/1.1\r\nContent-Length: +5\r\n\r\n", -1),
        (b"POST / HTTP/1.1\r\nContent-Length: 5\r\n 6\r\n\r\n", -1),
        (b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", -1),
        (b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n", -1),
        (b"POST / HTTP/1.1\r\nContent-Length: 5\r\n", -1),
    ],
)
def test_how_long_a_request_is_where_its_head_says_so_plainly(request_: bytes, length: int) -> None:
    assert length_of(request_) == length
