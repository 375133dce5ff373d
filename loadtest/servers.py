"""The processes under load, each on a core of its own: `python -m loadtest.servers KIND CORE`.

One line of JSON on standard input says what to serve, one on standard output where; the end of standard input
is the end of the process.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Protocol, cast

import msgspec
import numpy as np
import orjson
import uvloop
from aiohttp import web
from msgspec import Struct

from adserve import settings
from adserve.access.keys import Scope
from adserve.bootstrap.memory import collect_rarely
from adserve.bootstrap.service import start
from adserve.commands.scratch import issue_key
from adserve.prediction import artifact
from adserve.prediction.features import BUCKETS
from loadtest.generator import HOST


class Wanted(Struct, frozen=True):
    """`answer` is what the servers that decide nothing answer; the service needs a database and a data home."""

    answer: str = ""
    database_url: str = ""
    folder: str = ""
    redis_url: str | None = None


class Ready(Struct, frozen=True):
    """`key` is an operator's and feed service's, `media` a stored picture: both of the service only."""

    port: int
    pid: int = msgspec.field(default_factory=os.getpid)
    key: str = ""
    media: str = ""
    rates: str = ""


class Server(Protocol):
    def __call__(self, wanted: Wanted) -> AbstractAsyncContextManager[Ready]: ...


@asynccontextmanager
async def adserve(wanted: Wanted) -> AsyncIterator[Ready]:
    """The service as it is, with a click model of full size."""
    loaded = settings.load(
        data_home=wanted.folder,
        host=HOST,
        port=0,
        public_url=None,
        upstream_url=None,
        redis_url=wanted.redis_url,
    )
    if loaded.model_path is None:
        loaded = msgspec.structs.replace(loaded, model_path=drawn_model(loaded.data_home / "model"))
    service = await start(loaded, wanted.database_url)
    collect_rarely()
    try:
        yield Ready(
            port=int(service.url.rsplit(":", 1)[1]),
            key=await issue_key(service.core, "load", Scope.FEED, Scope.OPERATOR),
            media=await service.core.media.put(b"nobody looks", "image/webp", 1080, 1920),
            rates=service.core.live.current().rates.name,
        )
    finally:
        await service.stop()


@asynccontextmanager
async def bare(wanted: Wanted) -> AsyncIterator[Ready]:
    """What an aiohttp service cannot be faster than: it parses a request and serialises an answer."""
    answer = orjson.loads(wanted.answer)

    async def handle(request: web.Request) -> web.Response:
        orjson.loads(await request.read())
        return web.Response(body=orjson.dumps(answer), content_type="application/json")

    app = web.Application()
    app.router.add_post("/v1/slots", handle)
    app.router.add_post("/v1/events", handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, HOST, 0).start()
    try:
        yield Ready(runner.addresses[0][1])
    finally:
        await runner.cleanup()


@asynccontextmanager
async def trivial(wanted: Wanted) -> AsyncIterator[Ready]:
    """What shows how much the generator itself can do: it reads nothing of a request but that it is there."""
    body = wanted.answer.encode()
    server = await asyncio.get_running_loop().create_server(
        lambda: _Trivial(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)), HOST, 0
    )
    async with server:
        yield Ready(server.sockets[0].getsockname()[1])


class _Trivial(asyncio.Protocol):
    """A request of the generator arrives whole, as it is one write on the loopback."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self._transport: asyncio.WriteTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)

    def data_received(self, data: bytes) -> None:
        self._transport.write(self._answer)


def drawn_model(folder: Path) -> Path:
    """What a prediction costs does not depend on what the weights are worth."""
    weights = np.random.default_rng(0).normal(0.0, 0.1, BUCKETS)
    training = artifact.Training("", "", "", rows=0, clicks=0, regularisation=1.0, metrics={})
    artifact.save(folder, np.arange(BUCKETS, dtype=np.intp), weights, -4.0, training)
    return folder


SERVERS: dict[str, Server] = {"adserve": adserve, "bare": bare, "trivial": trivial}


async def _serve(kind: str) -> None:
    wanted = msgspec.json.decode(sys.stdin.readline(), type=Wanted)
    async with SERVERS[kind](wanted) as ready:
        print(msgspec.json.encode(ready).decode(), flush=True)  # noqa: T201 - what the starter waits for
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    os.sched_setaffinity(0, {int(sys.argv[2])})
    uvloop.run(_serve(sys.argv[1]))
