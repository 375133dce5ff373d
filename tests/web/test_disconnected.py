"""Who goes away in the middle of an answer is no fault of ours."""

import asyncio
import logging

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from waiting import PATIENCE_S

from adserve.web.app import build_app
from adserve.web.operations import AnyQuery, Call, Operation
from adserve.web.problems import FAULTS


async def test_who_goes_away_while_a_long_answer_is_written_is_no_fault(
    caplog: pytest.LogCaptureFixture,
) -> None:
    gone, ended = asyncio.Event(), asyncio.Event()

    async def endless(call: Call[None, AnyQuery]) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(call.request)
        try:
            while True:
                await response.write(b"a line of a log\n" * 1_000)
                await gone.wait()
        finally:
            ended.set()

    operation = Operation(
        method="GET", path="/log", id="log", tag="log", summary="A log", handle=endless, query=AnyQuery
    )
    before = FAULTS._value.get()
    async with TestServer(build_app([operation], None, body_max_bytes=1_000, version="1")) as server:  # type: ignore[arg-type]  # nothing asks for a key
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /log HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()
        gone.set()
        async with asyncio.timeout(PATIENCE_S):
            await ended.wait()
    assert FAULTS._value.get() == before
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
