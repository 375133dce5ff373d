"""The lane: which requests are for it, that connections stay in order, and that what it cannot answer goes the ordinary way."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from adserve.web.lane import AT_ONCE, Lane, in_step, secret_of

NOW_MS = 1_790_000_000_123
PLAIN = (
    b"Host: x",
    b"Authorization: Bearer adserve_k",
    b"Content-Type: application/json",
    b"Content-Length: 2",
)


def head(*lines: bytes) -> bytes:
    return b"\r\n".join((b"POST /v1/slots HTTP/1.1", *lines, b"", b""))


class Caller:
    def __init__(self) -> None:
        self.received_s = 0.0
        self.gone = False
        self.answers: list[bytes | None] = []

    def answer(self, request: bytes, response: bytes | None) -> None:
        self.answers.append(response)


def lane_of(
    decide: Callable[[str, bytes, int], Coroutine[Any, Any, bytes | None]], counted: list[int] | None = None
) -> Lane:
    counts = [] if counted is None else counted
    return Lane(decide, lambda: 0.02, lambda: NOW_MS, body_max_bytes=100, count=lambda: counts.append(1))


async def decided_and_written() -> None:
    for _ in range(2):
        await asyncio.sleep(0)


def test_a_plain_head_has_its_key() -> None:
    assert secret_of(head(*PLAIN)) == "adserve_k"
    assert secret_of(head(b"X-Trace: 1", b"authorization:bearer  adserve_k ", *PLAIN[2:])) == "adserve_k"
    assert secret_of(head(*PLAIN[:2], b"Content-Type: application/json; charset=UTF-8")) == "adserve_k"


@pytest.mark.parametrize(
    "lines",
    [
        PLAIN[:1] + PLAIN[2:],
        PLAIN[:2] + PLAIN[3:],
        (*PLAIN, b"Authorization: Bearer other"),
        (*PLAIN, b"Content-Encoding: gzip"),
        (*PLAIN, b"Content-Encoding: "),
        (b"Authorization: Basic YTpi", *PLAIN[2:]),
        (b"Authorization: Bearer a b", *PLAIN[2:]),
        (*PLAIN[:2], b"Content-Type: application/json; charset=latin-1"),
        (*PLAIN, b"Bad Name: x"),
        (*PLAIN, b"X-Bytes: \xff"),
        (*PLAIN, b"no colon"),
    ],
    ids=str,
)
def test_any_other_head_is_for_aiohttp(lines: tuple[bytes, ...]) -> None:
    assert secret_of(head(*lines)) is None


async def test_an_answer_is_a_whole_response() -> None:
    asked: list[tuple[str, bytes, int]] = []
    counted: list[int] = []

    async def decide(secret: str, body: bytes, waited_ms: int) -> bytes | None:
        asked.append((secret, body, waited_ms))
        return b"{}"

    caller, lane = Caller(), lane_of(decide, counted)
    assert lane.enter(caller, head(*PLAIN) + b"ab")
    assert caller.answers == [], "not before what has arrived is known"
    await decided_and_written()
    assert asked == [("adserve_k", b"ab", 20)]
    (answer,) = caller.answers
    assert answer is not None
    told, _, body = answer.partition(b"\r\n\r\n")
    assert (told.split(b"\r\n")[0], body) == (b"HTTP/1.1 200 OK", b"{}")
    assert b"Content-Length: 2" in told.split(b"\r\n")
    assert len(counted) == 1


async def test_what_cannot_be_answered_or_fails_goes_the_ordinary_way() -> None:
    async def refuse(*_: Any) -> bytes | None:
        return None

    async def fail(*_: Any) -> bytes | None:
        raise RuntimeError("not expected")

    for decide in (refuse, fail):
        caller, counted = Caller(), list[int]()
        assert lane_of(decide, counted).enter(caller, head(*PLAIN) + b"ab")
        await decided_and_written()
        assert (caller.answers, counted) == ([None], [])


async def test_some_at_once_are_decided_before_any_is_answered() -> None:
    seen: list[list[bytes | None]] = []
    callers = [Caller() for _ in range(AT_ONCE + 1)]

    async def decide(*_: Any) -> bytes | None:
        seen.append([answer for caller in callers for answer in caller.answers])
        return b"{}"

    lane = lane_of(decide)
    assert all([lane.enter(caller, head(*PLAIN) + b"ab") for caller in callers])
    await asyncio.sleep(0)
    assert seen == [[]] * AT_ONCE
    await decided_and_written()
    assert len(seen) == AT_ONCE + 1
    assert [len(caller.answers) for caller in callers] == [1] * (AT_ONCE + 1)


async def test_requests_go_step_by_step_together() -> None:
    steps: list[bytes] = []

    async def decide(_secret: str, body: bytes, _waited_ms: int) -> bytes | None:
        for step in (b"read", b"decided"):
            steps.append(body + step)
            await in_step()
        return body

    callers, lane = (Caller(), Caller()), lane_of(decide)
    assert all(
        [lane.enter(one, head(*PLAIN) + body) for one, body in zip(callers, (b"1", b"2"), strict=True)]
    )
    await asyncio.sleep(0)
    assert steps == [b"1read", b"2read", b"1decided", b"2decided"]
    await decided_and_written()
    assert [answer and answer[-1:] for caller in callers for answer in caller.answers] == [b"1", b"2"]


async def test_who_has_to_wait_is_answered_later_and_before_the_end() -> None:
    go_on = asyncio.Event()

    async def decide(*_: Any) -> bytes | None:
        await go_on.wait()
        await asyncio.sleep(0)
        return b"late"

    caller, lane = Caller(), lane_of(decide)
    assert lane.enter(caller, head(*PLAIN) + b"ab")
    await asyncio.sleep(0.01)
    assert caller.answers == []
    closing = asyncio.create_task(lane.close(5))
    await asyncio.sleep(0)
    assert not lane.enter(Caller(), head(*PLAIN) + b"ab")
    go_on.set()
    await closing
    await asyncio.sleep(0)
    assert [answer and answer.endswith(b"late") for answer in caller.answers] == [True]


async def test_whoever_has_entered_is_answered_before_the_end() -> None:
    async def decide(*_: Any) -> bytes | None:
        return b"{}"

    callers, lane = [Caller() for _ in range(2 * AT_ONCE)], lane_of(decide)
    for caller in callers:
        lane.enter(caller, head(*PLAIN) + b"ab")
    await lane.close(5)
    assert all(caller.answers for caller in callers)


async def test_nobody_decides_for_a_caller_who_has_gone() -> None:
    asked: list[bytes] = []

    async def decide(_secret: str, body: bytes, _waited_ms: int) -> bytes | None:
        asked.append(body)
        return b""

    caller, lane = Caller(), lane_of(decide)
    assert lane.enter(caller, head(*PLAIN) + b"ab")
    caller.gone = True
    await decided_and_written()
    assert (asked, caller.answers) == ([], [])


async def test_a_body_that_is_too_large_is_for_aiohttp_to_refuse() -> None:
    async def decide(*_: Any) -> bytes | None:
        return b""

    assert not lane_of(decide).enter(Caller(), head(*PLAIN) + b"x" * 101)
