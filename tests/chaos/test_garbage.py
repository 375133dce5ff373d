"""Whatever comes down a socket, the replica stays up, answers others meanwhile, and never with a 500."""

import asyncio
import contextlib
import gzip
import json
import random
import re
import time
import zlib
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from statistics import median

import pytest
from live import Caller, Live

from adserve.bootstrap import service
from adserve.settings import Settings

ANSWERED_WITHIN_S = 60.0
HALF_CLOSED_AFTER_S = 0.1
"""Who closes at once is not answered."""
SLOTS = b'{"viewer": "garbage", "feed_length": 30}'


@pytest.fixture(autouse=True)
async def unharmed(replica: Live, client: Caller) -> AsyncIterator[None]:
    yield
    assert (await client.call("GET", "/healthz", key=None)).status == 200
    assert len(await client.tickets("afterwards")) == 1
    metrics = (await client.call("GET", "/metrics", key=None)).raw.decode()
    assert "adserve_faults_total 0.0" in metrics, replica.said


async def exchange(replica: Live, parts: Iterable[bytes], *, end: bool = True, pause_s: float = 0) -> bytes:
    """All that is answered until the replica closes the connection, which it may do before it has read all parts."""
    reader, writer = await asyncio.open_connection("127.0.0.1", replica.port)
    answered: list[bytes] = []

    async def collect() -> None:
        with contextlib.suppress(ConnectionError):
            while part := await reader.read(65_536):
                answered.append(part)

    async with asyncio.timeout(ANSWERED_WITHIN_S), asyncio.TaskGroup() as group:
        group.create_task(collect())
        with contextlib.suppress(OSError):
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(pause_s)
            if end:
                await asyncio.sleep(HALF_CLOSED_AFTER_S)
                writer.write_eof()
    writer.close()
    return b"".join(answered)


def request(client: Caller, *headers: bytes, body: bytes = b"", path: bytes = b"/v1/slots") -> bytes:
    key = client.keys["feed"].encode()
    lines = (
        b"POST %b HTTP/1.1" % path,
        b"Host: x",
        b"Authorization: Bearer " + key,
        b"Content-Type: application/json",
    )
    return b"\r\n".join((*lines, *headers, b"", b"")) + body


def statuses(answered: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3}) ", answered)]


async def test_random_bytes(replica: Live) -> None:
    chance = random.Random(7)
    sent = [chance.randbytes(chance.randrange(1, 5_000)) for _ in range(60)]
    sent += [b"POST /v1/events HTTP/1.1\r\n" + noise for noise in sent[:20]]
    answers = await asyncio.gather(*(exchange(replica, [noise]) for noise in sent))
    assert {status for answered in answers for status in statuses(answered)} <= {400}


async def test_half_requests(replica: Live, client: Caller) -> None:
    whole = request(client, b"Content-Length: %d" % len(SLOTS), body=SLOTS)
    cuts = range(1, len(whole), 17)
    answers = await asyncio.gather(*(exchange(replica, [whole[:cut]]) for cut in cuts))
    assert {status for answered in answers for status in statuses(answered)} <= {400, 408}


async def test_chunked_and_pipelined_requests_are_answered_in_order(replica: Live, client: Caller) -> None:
    close = b"Connection: close"
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in SLOTS) + b"0\r\n\r\n"
    chunked = request(client, b"Transfer-Encoding: chunked", body=chunks)
    plain = request(client, b"Content-Length: %d" % len(SLOTS), body=SLOTS)
    wrong = request(client, b"Content-Length: 2", body=b"[]")
    last = request(client, b"Content-Length: %d" % len(SLOTS), close, body=SLOTS)
    assert statuses(await exchange(replica, [chunked + plain + wrong + last], end=False)) == [
        200,
        200,
        400,
        200,
    ]
    both = request(client, b"Transfer-Encoding: chunked", b"Content-Length: 5", body=chunks)
    assert statuses(await exchange(replica, [both], end=False))[:1] == [400]


async def test_bodies_and_headers_have_bounds(replica: Live, client: Caller) -> None:
    large = json.dumps({"viewer": "v" * 2_000_000, "feed_length": 30}).encode()
    chunked = (
        b"%x\r\n%b\r\n" % (len(part), part)
        for part in (large[at : at + 50_000] for at in range(0, 2_000_000, 50_000))
    )
    close = b"Connection: close"
    assert statuses(
        await exchange(
            replica, [request(client, b"Content-Length: %d" % len(large), close), large], end=False
        )
    ) == [413]
    assert statuses(
        await exchange(replica, [request(client, b"Transfer-Encoding: chunked", close), *chunked], end=False)
    ) == [413]
    assert statuses(
        await exchange(replica, [request(client, b"X-Large: " + b"x" * 1_000_000)], end=False)
    ) == [400]
    assert statuses(
        await exchange(replica, [request(client, *(b"X-%d: x" % n for n in range(100_000)))], end=False)
    ) == [400]
    assert statuses(await exchange(replica, [request(client, path=b"/" + b"x" * 1_000_000)], end=False)) == [
        400
    ]


async def test_what_cannot_be_parsed_is_told_so_as_a_problem(replica: Live, client: Caller) -> None:
    long, get = b"a" * 9_000, b"GET /i.gif?e=a-ticket HTTP/1.1\r\nHost: x\r\n"
    for cannot_be_read, why in {
        b"BREW /i.gif?e=a-ticket HTTP/1.1\r\n\r\n": "Invalid method encountered: b'BREW ",
        b"GET /healthz HTTP/9.1\r\nHost: x\r\n\r\n": "Bad status line: ",
        b"GET /healthz HTTP/1.1\r\n\r\n": "Missing 'Host' header in request.",
        b"GET http://[::1 HTTP/1.1\r\nHost: x\r\n\r\n": "http://[::1",
        get + b"bad header\r\n\r\n": "Invalid header token: b'bad header'",
        get + b"X-Long: " + long + b"\r\n\r\n": "Got more than ",
        b"GET /" + long + b" HTTP/1.1\r\nHost: x\r\n\r\n": "Got more than ",
        request(
            client, b"Transfer-Encoding: chunked", body=b"ZZ\r\n{}\r\n"
        ): "Invalid character in chunk size: ",
        request(client, b"Content-Length: -2", body=b"{}"): "Invalid character in Content-Length: ",
    }.items():
        answered = await exchange(replica, [cannot_be_read], end=False)
        head, _, body = answered.partition(b"\r\n\r\n")
        assert statuses(answered) == [400]
        assert b"\r\nContent-Type: application/problem+json\r\n" in head
        problem = json.loads(body)
        assert (problem["type"], problem["status"]) == ("urn:adserve:problem:invalid", 400)
        assert problem["detail"].startswith(f"The request cannot be read: {why}"), problem
    assert "a-ticket" not in replica.said


async def test_nobody_expects_what_no_route_takes(replica: Live) -> None:
    for line in (
        b"GET /nowhere",
        b"DELETE /healthz",
        b"GET /console",
        b"DELETE /console/session",
        b"GET /healthz",
    ):
        asked = line + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\nExpect: \xff\r\n\r\n"
        answered = await exchange(replica, [asked], end=False)
        assert statuses(answered) == [417], line
        assert b"application/problem+json" in answered


async def test_a_compressed_body_holds_up_nobody(replica: Live, client: Caller) -> None:
    """Refused or not: what is thrown away is not unpacked."""
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    million = packer.compress(bytes(1_000_000)) + packer.flush(zlib.Z_FULL_FLUSH)
    bomb = gzip.compress(b"")[:10] + million * 900
    packed = (b"Content-Length: %d" % len(bomb), b"Content-Encoding: gzip")
    for authorised in (request(client, *packed), request(client, *packed).replace(b"Bearer", b"Nobody")):
        sending = asyncio.create_task(exchange(replica, [authorised + bomb]))
        took_s = []
        while not sending.done():
            began = time.monotonic()
            assert (await client.call("GET", "/healthz", key=None)).status == 200
            took_s.append(time.monotonic() - began)
            await asyncio.sleep(0.02)
        assert max(took_s) < 1
        assert set(statuses(await sending)) <= {401, 413}


async def test_a_slow_caller_holds_up_nobody(replica: Live, client: Caller) -> None:
    """A byte now and then, on many connections."""
    head = request(client, b"Content-Length: %d" % len(SLOTS))
    slow = [
        asyncio.create_task(exchange(replica, (head[at : at + 1] for at in range(20)), pause_s=0.1))
        for _ in range(100)
    ]
    took_s = []
    for viewer in range(20):
        began = time.monotonic()
        assert (await client.slots(f"quick-{viewer}")).status == 200
        took_s.append(time.monotonic() - began)
        await asyncio.sleep(0.05)
    assert median(took_s) < 1
    await asyncio.gather(*slow)


async def test_who_never_finishes_a_head_is_cut_off(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "IDLE_S", 0.5)
    serving = await service.start(Settings(data_home=tmp_path, port=0), database_url)
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", serving.core.settings.port)
        async with asyncio.timeout(ANSWERED_WITHIN_S):
            for byte in b"GET /healthz HTTP/1.1":
                writer.write(bytes([byte]))
                await asyncio.sleep(0.01)
            with contextlib.suppress(ConnectionResetError):  # by a busy machine before the last byte
                assert await reader.read() == b""
        writer.close()
    finally:
        await serving.stop()
