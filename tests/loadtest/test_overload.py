"""An open loop against a core that can answer 500 requests a second: with the limiter, and without it.

Over real sockets, on a machine that does other things, too: how much is answered how soon is for tests/web/test_limiter.py and
make bench to see.
"""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from aiohttp import web
from waiting import happens

from adserve.web.gate import Connection, Refusals, answered
from adserve.web.limiter import WINDOW_S, Limiter
from loadtest.events import settled
from loadtest.generator import LoadError, post
from loadtest.open_loop import DEADLINE_S, Offered, offer

SERVICE_S = 0.002
CAN_PER_S = 1 / SERVICE_S
LONG_MS = 5 * DEADLINE_S * 1_000
SLOTS = [post("/v1/slots", b'{"viewer":"u"}', "key")]
AD = '{"decision":"1","placements":[{}],"no_fill":null}'
EVENTS = [post("/v1/events", b"{}", "key")] * 20


class NoLimiter(Limiter):
    """The broken twin: it admits whoever comes."""

    def admit(self) -> bool:
        super().admit()
        return True


class Core:
    """It sleeps in place of work: so that each request takes the same, whoever has the machine's core."""

    def __init__(self, kind: type[Limiter] = Limiter, answer: str = AD) -> None:
        self.worked_s = 0.0
        self.answer = answer
        self.limiter = kind(time.perf_counter, lambda: self.worked_s)

    async def slots(self, _request: web.Request) -> web.Response:
        time.sleep(SERVICE_S)  # noqa: ASYNC251 - the core is busy
        self.worked_s += SERVICE_S
        response = web.Response(text=self.answer)
        answered(response)
        return response


async def events(_request: web.Request) -> web.Response:
    response = web.Response(text="recorded")
    answered(response)
    return response


async def serve(core: Core, port: asyncio.Future[int], over: asyncio.Event) -> None:
    app = web.Application()
    app.router.add_post("/v1/slots", core.slots)
    app.router.add_post("/v1/events", events)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    handlers, refusals = runner.server, Refusals(lambda: time.time_ns() // 1_000_000, lambda: 1)
    assert handlers is not None
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(core.limiter, refusals, None, None, handlers()), "127.0.0.1", 0
    )
    port.get_loop().call_soon_threadsafe(port.set_result, server.sockets[0].getsockname()[1])
    while not over.is_set():
        await asyncio.sleep(WINDOW_S)
        await core.limiter.step(0)
    server.close()
    await runner.cleanup()


@contextmanager
def serving(core: Core, port: asyncio.Future[int]) -> Iterator[None]:
    """In a thread: a server that is busy must not keep the generator from sending."""
    over = asyncio.Event()
    thread = threading.Thread(target=lambda: asyncio.run(serve(core, port, over)))
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


async def offered(core: Core, times: float) -> Offered:
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    with serving(core, port):
        return await offer(await port, SLOTS, per_s=times * CAN_PER_S, seconds=2.0, side=EVENTS)


@pytest.mark.parametrize("times", [2.0, 3.0])
async def test_an_overload_costs_neither_goodput_nor_latency_nor_events(times: float) -> None:
    """On a machine that does other things, too, and may stall: one of many tries is enough. `make bench` measures it."""

    async def it_copes() -> bool:
        done = await offered(Core(), times)
        assert done.side.bodies == [b"recorded"] * len(EVENTS)
        return done.good_per_s > 0 and done.p50_ms < LONG_MS and done.refused > 0.3

    assert await happens(it_copes)


async def test_control_without_the_limiter_nothing_comes_in_time() -> None:
    done = await offered(Core(NoLimiter), 2.0)
    assert done.good_per_s < 0.1 * CAN_PER_S
    assert done.p50_ms > LONG_MS


async def test_below_its_capacity_nobody_is_refused() -> None:
    async def it_copes() -> bool:
        done = await offered(Core(), 0.2)
        return done.refused < 0.05 and done.sent_per_s == pytest.approx(0.2 * CAN_PER_S, rel=0.3)

    assert await happens(it_copes)


async def test_a_broken_service_that_has_no_ads_to_give_is_not_quick_but_bad() -> None:
    done = await offered(Core(answer='{"decision":"1","placements":[],"no_fill":"degraded"}'), 0.2)
    assert (done.good_per_s, done.refused) == (0, 1)


def test_events_that_were_not_settled_are_no_figure() -> None:
    body = b'{"results":[{"outcome":"%s"},{"outcome":"recorded"}]}'
    assert settled([body % b"unbilled_kind"] * 2) == {"recorded": 2, "unbilled_kind": 2}
    for outcome in (b"refused", b"duplicate", b"accepted"):
        with pytest.raises(LoadError, match="not all events"):
            settled([body % b"recorded", body % outcome])


async def test_an_answer_that_is_no_success_ends_the_load() -> None:
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    with serving(Core(), port), pytest.raises(LoadError, match="404"):
        await offer(await port, [post("/nowhere", b"{}", "key")], per_s=100, seconds=0.2)
