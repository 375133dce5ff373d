"""The generator against servers that are a few lines long."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import cast

import pytest

from loadtest.generator import PEOPLE, PERSON, SERIAL, LoadError, load, post

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nwell"

Answer = Callable[[bytes], list[bytes]]
"""From a request's body to the pieces in which its answer is sent; an empty one closes the connection."""


class _Server(asyncio.Protocol):
    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)

    def data_received(self, data: bytes) -> None:
        for nth, piece in enumerate(self._answer(data.split(b"\r\n\r\n", 1)[1])):
            asyncio.get_running_loop().call_later(0.002 * nth, self._send, piece)

    def _send(self, piece: bytes) -> None:
        if piece:
            self._transport.write(piece)
        else:
            self._transport.close()


@asynccontextmanager
async def serving(answer: Answer) -> AsyncIterator[int]:
    server = await asyncio.get_running_loop().create_server(lambda: _Server(answer), "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def test_each_request_is_sent_once_when_no_time_is_given() -> None:
    seen: list[bytes] = []

    def answer(body: bytes) -> list[bytes]:
        seen.append(body)
        return [OK]

    async with serving(answer) as port:
        sent = [post("/", b"%d" % number, "key") for number in range(100)]
        done = await load(port, sent, connections=7, kept_every=1)
    assert sorted(seen, key=int) == [b"%d" % number for number in range(100)]
    assert done.bodies == [b"well"] * 100
    assert 0 < done.p50_ms <= done.p99_ms


async def test_a_load_ends_with_its_time_and_no_serial_comes_twice_and_every_person_does() -> None:
    seen: list[bytes] = []

    def answer(body: bytes) -> list[bytes]:
        seen.append(body)
        return [OK]

    async with serving(answer) as port:
        done = await load(port, [post("/", SERIAL + PERSON, "key")], connections=3, seconds=0.2)
    serials, people = zip(*[(body[: len(SERIAL)], body[len(SERIAL) :]) for body in seen], strict=True)
    assert len(seen) > PEOPLE
    assert len(set(serials)) == len(seen)
    assert all(len(serial) == len(SERIAL) and serial.isdigit() for serial in serials)
    assert set(people) == {b"%0*d" % (len(PERSON), person) for person in range(PEOPLE)}
    assert done.per_s == pytest.approx(len(seen) / 0.2, rel=0.5)


async def test_an_answer_may_come_in_pieces() -> None:
    async with serving(lambda _: [OK[:9], OK[9:30], OK[30:-1], OK[-1:]]) as port:
        done = await load(port, [post("/", b"x", "key")] * 10, connections=2, kept_every=1)
    assert done.bodies == [b"well"] * 10


@pytest.mark.parametrize(
    "pieces", [[b"HTTP/1.1 503 Away\r\nContent-Length: 4\r\n\r\nlate"], [OK[:20], b""]], ids=["503", "closed"]
)
async def test_anything_else_than_a_whole_success_ends_the_load(pieces: list[bytes]) -> None:
    async with serving(lambda _: pieces) as port:
        with pytest.raises(LoadError):
            await load(port, [post("/", b"x", "key")] * 3, connections=2)
