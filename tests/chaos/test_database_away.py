"""PostgreSQL hangs, is gone or cannot be reached: ads go on from the snapshot, the feed passes, events are spooled, nothing is lost."""

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port
from live import Caller, Live, Postgres, calling, furnish
from proxy import Proxy, proxied
from traffic import books
from waiting import until

from adserve.database import embedded
from adserve.database.embedded import Embedded
from adserve.database.migrate import migrate

LATER_EVENTS_WITHIN_S = 1.0
SLOTS_ANSWERED_WITHIN_S = 1.0
"""Of most of them: some have met the machine as it stalled. All are answered before the database returns."""
ENDED_WITHIN_S = 30.0
EVENTS = 12
EVENTS_EVERY_S = 0.4

FEED = (
    b'{ "items" : ['
    + b",".join(b'{"id":"s%d","author":"a%d"}' % (n, n) for n in range(12))
    + b'], "n": 1.0 }'
)


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[Embedded]:
    """A server that is not the replica's own: it does not start it again."""
    started = asyncio.run(embedded.start(home, lambda _: None))
    migrate(started.url, lambda _: None)
    yield started
    asyncio.run(started.stop())


@pytest.fixture(scope="module")
def upstream_port() -> int:
    port: int = unused_port()
    return port


@pytest.fixture(scope="module")
def proxy(server: Embedded) -> Iterator[Proxy]:
    with proxied(urlsplit(server.url).port or 0) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def live(home: Path, server: Embedded, proxy: Proxy, upstream_port: int) -> Iterator[Live]:
    corrupt = home / "model"
    corrupt.mkdir()
    (corrupt / "model.json").write_text("{")
    replica = Live(
        home,
        database_url=server.url.replace(f":{urlsplit(server.url).port}/", f":{proxy.port}/"),
        upstream_url=f"http://127.0.0.1:{upstream_port}/feeds",
        model_path=corrupt,
    )
    replica.start()
    yield replica
    replica.end()


@pytest.fixture(scope="module")
def keys(live: Live, server: Embedded) -> dict[str, str]:
    return asyncio.run(furnish(live, server.url))


@pytest.fixture
async def caller(live: Live, keys: dict[str, str], upstream_port: int) -> AsyncIterator[Caller]:
    async def feed(_request: web.Request) -> web.Response:
        return web.Response(body=FEED, content_type="application/json", headers={"ETag": '"1"'})

    async def part(_request: web.Request) -> web.Response:
        return web.Response(status=206, body=FEED[:40], content_type="application/json")

    async def page(_request: web.Request) -> web.Response:
        return web.Response(body=FEED, content_type="text/html")

    app = web.Application()
    for name, handler in (("feed", feed), ("part", part), ("page", page)):
        app.router.add_get(f"/feeds/{name}", handler)
    async with TestServer(app, port=upstream_port), calling(live, keys) as caller:
        yield caller


@asynccontextmanager
async def stopped(server: Embedded, home: Path, proxy: Proxy) -> AsyncIterator[None]:
    """Connections stay open and say nothing."""
    Postgres(home).signal(signal.SIGSTOP)
    try:
        yield
    finally:
        Postgres(home).signal(signal.SIGCONT)


@asynccontextmanager
async def killed(server: Embedded, home: Path, proxy: Proxy) -> AsyncIterator[None]:
    Postgres(home).signal(signal.SIGKILL)
    try:
        yield
    finally:
        await server.mend()


@asynccontextmanager
async def blackholed(server: Embedded, home: Path, proxy: Proxy) -> AsyncIterator[None]:
    """Whatever is sent, either way, is swallowed, and no connection is ever refused or closed."""
    proxy.swallows = True
    try:
        yield
    finally:
        proxy.swallows = False


Away = Callable[[Embedded, Path, Proxy], AbstractAsyncContextManager[None]]


@pytest.mark.parametrize("away", [stopped, killed, blackholed])
async def test_a_replica_does_without_its_database_and_comes_back(
    caller: Caller, server: Embedded, home: Path, proxy: Proxy, away: Away
) -> None:
    tickets = [
        ticket for viewer in range(EVENTS) for ticket in await caller.tickets(f"{away.__name__}-{viewer}")
    ]
    assert len(tickets) == EVENTS
    clicked, hider = tickets[0], f"{away.__name__}-hides"
    (hidden,) = await caller.tickets(hider)
    before = await books(server.url)
    async with away(server, home, proxy), asyncio.TaskGroup() as group:
        group.create_task(readyz_names_the_database_and_is_ready(caller))
        group.create_task(slots_are_answered(caller))
        group.create_task(feeds_pass(caller))
        group.create_task(a_click_is_sent_on(caller, clicked))
        group.create_task(event_is_accepted(caller, hidden, "hide"))
        group.create_task(events_are_accepted(caller, tickets))
    await until(lambda: is_back(caller))
    await until(lambda: has_settled(caller))
    assert [await caller.kinds(ticket) for ticket in tickets[1:]] == [{"impression": "recorded"}] * (
        EVENTS - 1
    )
    assert await caller.kinds(clicked) == {"impression": "recorded", "click": "unbilled_kind"}
    assert await caller.kinds(hidden) == {"hide": "unbilled_kind"}
    assert await caller.outcomes(*tickets) == ["duplicate"] * EVENTS
    assert await caller.tickets(hider) == []
    after = await books(server.url)
    assert after.exact, after.differences
    assert after.events - before.events == EVENTS + 2


async def readyz_names_the_database_and_is_ready(caller: Caller) -> None:
    """It decides from the snapshot, and records into the spool."""

    async def noticed() -> bool:
        status, parts = await caller.readiness()
        assert status == 200
        return not parts["database"]["ok"]

    await until(noticed)


async def is_back(caller: Caller) -> bool:
    status, parts = await caller.readiness()
    return status == 200 and bool(parts["database"]["ok"])


async def slots_are_answered(caller: Caller) -> None:
    took_s = []
    for viewer in range(10):
        began = time.monotonic()
        reply = await caller.slots(f"during-{viewer}-{began}")
        took_s.append(time.monotonic() - began)
        assert (reply.status, len(reply.body["placements"])) == (200, 1), reply
        await asyncio.sleep(EVENTS_EVERY_S)
    assert median(took_s) < SLOTS_ANSWERED_WITHIN_S


async def feeds_pass(caller: Caller) -> None:
    for viewer in range(5):
        body = await feed(caller, "feed", viewer)
        assert without_ads(body) == FEED
        await asyncio.sleep(EVENTS_EVERY_S)
    assert (await feed(caller, "part", 0), await feed(caller, "page", 0)) == (FEED[:40], FEED)
    reply = await caller.call("HEAD", "/v1/feed/feed", key=None, **ours(caller, 0))
    assert (reply.status, reply.headers["Content-Length"]) == (200, str(len(FEED)))


async def a_click_is_sent_on(caller: Caller, ticket: str) -> None:
    reply = await caller.call("GET", f"/r?e={ticket}", key=None)
    assert (reply.status, reply.headers["Location"]) == (302, "https://example.com/kopi")


async def has_settled(caller: Caller) -> bool:
    _, parts = await caller.readiness()
    return bool(parts["spool"]["detail"] == "empty")


async def events_are_accepted(caller: Caller, tickets: list[str]) -> None:
    """All through the outage, and none waits for those before it."""
    async with asyncio.TaskGroup() as group:
        reports = []
        for ticket in tickets:
            reports.append(group.create_task(event_is_accepted(caller, ticket, "impression")))
            await asyncio.sleep(EVENTS_EVERY_S)
    assert median(report.result() for report in reports[EVENTS // 2 :]) < LATER_EVENTS_WITHIN_S


async def event_is_accepted(caller: Caller, ticket: str, kind: str) -> float:
    """How many seconds it took."""
    began = time.monotonic()
    assert await caller.outcomes(ticket, kind=kind) == ["accepted"]
    took_s = time.monotonic() - began
    assert (await caller.kinds(ticket))[kind] == "accepted"
    return took_s


def ours(caller: Caller, viewer: int) -> dict[str, str]:
    return {"X-Adserve-Key": caller.keys["feed"], "X-Adserve-Viewer": f"w-{viewer}"}


async def feed(caller: Caller, path: str, viewer: int) -> bytes:
    async with caller.session.get(f"{caller.url}/v1/feed/{path}", headers=ours(caller, viewer)) as answer:
        assert answer.status == (206 if path == "part" else 200)
        return await answer.read()


def without_ads(body: bytes) -> bytes:
    text = body.decode()
    while (begin := text.find('{"type":"ad"')) >= 0:
        end = json.JSONDecoder().raw_decode(text, begin)[1]
        text = text[: begin - 1] + text[end:] if text[begin - 1] == "," else text[:begin] + text[end + 1 :]
    return text.encode()


async def test_a_corrupt_model_is_replaced_by_the_prior_and_readyz_says_so(caller: Caller) -> None:
    status, parts = await caller.readiness()
    assert status == 200
    assert parts["rates"]["detail"].startswith("prior: ")
    assert b'{"type":"ad"' in await feed(caller, "feed", 100)


async def test_a_replica_ends_in_time_while_its_database_hangs(
    live: Live, server: Embedded, home: Path, proxy: Proxy
) -> None:
    async with stopped(server, home, proxy):
        began = time.monotonic()
        assert await asyncio.to_thread(live.terminate) == 0
        assert time.monotonic() - began < ENDED_WITHIN_S
