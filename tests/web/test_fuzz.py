"""Bytes that no client would send: whatever comes, the answer is a refusal or none, never a fault, and the next caller
is served."""

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import Iterator

import pytest
from service import Service

from adserve.web import bodies

CASES = 1_500
PATIENCE_S = 0.25
"""For those that may still wait for the rest of what they were promised."""

BODIES = (
    b'{"viewer": "u", "feed": [{"id": "s", "author": "a"}], "context": {"country": "ID"}}',
    b'{"events": [{"ticket": "t", "kind": "view", "occurred_at": "2026-01-01T00:00:00Z", "view_ms": 1}]}',
    b'{"advertiser": 1, "name": "c", "starts_at": "2026-01-01T00:00:00Z", "billable": "click", "bid":'
    b' {"model": "cpc", "price": {"micros": 1, "currency": "USD"}}, "targeting": {"age": {"min": 1}}}',
    b'{"outcomes": [{"id": "s", "viewer": "u", "occurred_at": "2026-01-01T00:00:00Z", "session_seconds": 1.5}]}',
    b'{"surfaces": {"status": {"percent": 5.25, "countries": {"ID": 1e1}}}}',
)
POISON = (
    b"\x00", b"\xff", b"\xed\xa0\x80", b"\\u0000", b"\\ud800", b"1e999", b"-0", b"9" * 400, b"[" * 3_000, b'{"":' * 900,
    b"NaN", b"null", b'"', b"\\", b"]", b"}", b",", b"\xef\xbb\xbf", b"true", b"1.5", "😀".encode(), b"\r\n",
)  # fmt: skip  # laid out as rows
LINES = (
    "POST /v1/slots",
    "POST /v1/events",
    "POST /v1/outcomes",
    "POST /v1/campaigns",
    "PUT /v1/rollout",
    "PATCH /v1/campaigns/1",
    "POST /i.gif?e=t",
    "GET /r?e=t",
    "GET /v1/impressions?limit=1",
    "GET /v1/advertisers?after=WzFd",
    "GET /v1/events/t",
    "GET /media/x",
)


def mutated(chance: random.Random, text: bytes) -> bytes:
    for _ in range(chance.randrange(4)):
        at, end = sorted(chance.choices(range(len(text) + 1), k=2))
        text = text[:at] + chance.choice((*POISON, text[at:end])) + text[chance.choice((at, end)) :]
    return text


def requests(service: Service, seed: int) -> Iterator[bytes]:
    chance = random.Random(seed)
    for _ in range(CASES):
        line = (
            mutated(chance, chance.choice(LINES).encode())
            if chance.random() < 0.3
            else chance.choice(LINES).encode()
        )
        body = mutated(chance, chance.choice(BODIES))
        length = len(body) if chance.random() < 0.95 else chance.randrange(3 * len(body) + 1)
        headers = [
            b"Host: ads.test",
            b"Content-Type: application/json",
            b"Authorization: Bearer " + service.keys[chance.choice(("feed", "operator", "analyst"))].encode(),
            b"If-Match: *",
            b"Content-Length: %d" % length,
        ]
        if chance.random() < 0.3:
            headers.append(
                mutated(
                    chance, chance.choice((b"Idempotency-Key: k", b"Content-Encoding: gzip", b"Expect: x"))
                )
            )
        yield b"%b HTTP/1.1\r\n%b\r\n\r\n%b" % (line, b"\r\n".join(headers), body)


async def status_of(service: Service, request: bytes, patience_s: float = PATIENCE_S) -> bytes:
    url = service.client.make_url("/")
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(request)
    answer = b""
    try:
        async with asyncio.timeout(patience_s):
            answer = await reader.readline()
    except (ConnectionError, TimeoutError):
        pass
    finally:
        writer.close()
    return answer[9:12]


async def test_raw_bytes_find_no_fault(service: Service) -> None:
    await service.plant()
    await service.go_live()
    counts: Counter[bytes] = Counter()
    for request in requests(service, seed=7):
        status = await status_of(service, request)
        assert not status.startswith(b"5"), request
        counts[status[:1]] += 1
    assert counts[b"2"] > CASES / 50, counts
    assert counts[b"4"] > CASES / 5, counts
    assert (await service.call("GET", "/healthz", key=None)).status == 200


async def test_control_a_decoder_that_lets_its_errors_out_is_found(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "decode_json", lambda decoder, raw: decoder.decode(raw))
    statuses = [
        await status_of(service, request) for request in itertools.islice(requests(service, seed=7), 200)
    ]
    assert b"500" in statuses


async def test_an_expectation_that_is_no_text_is_refused(service: Service) -> None:
    head = b"POST /v1/slots HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: "
    for expected, status in ((b"\xff\xed", b"417"), (b"100-continue", b"100")):
        assert await status_of(service, head + expected + b"\r\n\r\n{}", patience_s=60) == status
