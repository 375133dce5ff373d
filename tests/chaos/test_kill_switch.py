"""The switch under load: three replicas that count in one Redis, one of them cut off from PostgreSQL; and a snapshot grown old.

ADSERVE_KILL_ROUNDS turns it as often, every time within a second, and the slowest replica is written into
loadtest/results/ramp.json. Else one of several tries is enough: a machine that stalls meanwhile is not the switch's fault.
"""

import asyncio
import json
import os
import secrets
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from math import inf
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple, cast
from urllib.parse import urlsplit

import pytest
from live import Caller, Live, calling, furnish
from proxy import Proxy, proxied
from redis_servers import RedisServer, needs_redis
from waiting import happens, until

from adserve import settings
from adserve.bootstrap.core import system_clock
from adserve.bootstrap.service import start
from adserve.catalogue.snapshot import SNAPSHOT_MAX_AGE_MS

ROUNDS = int(os.environ.get("ADSERVE_KILL_ROUNDS", "0"))
RESULT = Path(__file__).parents[2] / "loadtest" / "results" / "ramp.json"
AT_ONCE_MS = 1_000
WATCHED_S = 1.3
CALLERS = 3
"""Requests in flight at each replica."""


class Setting(NamedTuple):
    """The last of the replicas reaches PostgreSQL through the proxy."""

    proxy: Proxy
    replicas: tuple[Live, ...]
    keys: dict[str, str]


Pause = Callable[[Setting], Awaitable[float]]


class Watch:
    """Asks one replica for ads without a pause, and notes when it asked and whether there was one."""

    def __init__(self, caller: Caller) -> None:
        self.seen: list[tuple[float, bool]] = []
        self._caller = caller

    async def ask(self) -> None:
        while True:
            asked = time.monotonic()
            self.seen.append((asked, bool(await self._caller.tickets(secrets.token_hex(8)))))

    def kill_ms(self, since: float) -> float:
        """How long after that moment somebody asked and got an ad for the last time."""
        return max((1_000 * (asked - since) for asked, ad in self.seen if ad and asked >= since), default=0.0)

    def ads(self, since: float) -> tuple[int, int]:
        """Answers with and without ads to what was asked from that moment on."""
        found = [ad for asked, ad in self.seen if asked >= since]
        return sum(found), len(found) - sum(found)


@pytest.fixture(scope="module")
def setting(home: Path, fresh_database_url: str) -> Iterator[Setting]:
    redis = RedisServer()
    try:
        with proxied(urlsplit(fresh_database_url).port or 0) as proxy:
            given = {"redis_url": redis.url, "public_url": "http://ads.test"}
            urls = fresh_database_url, fresh_database_url, via(proxy, fresh_database_url)
            replicas = tuple(Live(home, database_url=url, **given) for url in urls)
            with ThreadPoolExecutor() as at_once:
                try:
                    list(at_once.map(Live.start, replicas))
                    yield Setting(proxy, replicas, asyncio.run(furnish(replicas[0], fresh_database_url)))
                finally:
                    list(at_once.map(Live.end, replicas))
    finally:
        redis.end()


@asynccontextmanager
async def watched(setting: Setting) -> AsyncIterator[tuple[Caller, Sequence[Watch]]]:
    """Under load, all of them showing ads; the switch is back when it ends."""
    async with AsyncExitStack() as stack:
        callers = [await stack.enter_async_context(calling(live, setting.keys)) for live in setting.replicas]
        await callers[0].call("POST", "/v1/rollout/resume")
        for caller in callers:
            await until(lambda caller=caller: shows(caller))
        watches = [Watch(caller) for caller in callers]
        asking = [asyncio.create_task(watch.ask()) for watch in watches for _ in range(CALLERS)]
        try:
            await asyncio.sleep(0.3)
            yield callers[0], watches
        finally:
            for task in asking:
                task.cancel()
            ended = await asyncio.gather(*asking, return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError) for end in ended), ended


async def shows(caller: Caller) -> bool:
    reply = await caller.slots(secrets.token_hex(8))
    return reply.status == 200 and bool(reply.body["placements"])


def record(kill_ms: float) -> None:
    seen = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    seen["kill_ms_max"] = round(max(kill_ms, seen.get("kill_ms_max") or 0.0), 1)
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(seen, indent=2, sort_keys=True) + "\n")


async def asked_until(moment: float, *watches: Watch) -> None:
    """Each of them was asked, and answered, at a time that is so late."""
    await until(lambda: all(any(watch.ads(moment)) for watch in watches))


async def pause_everywhere(setting: Setting) -> float:
    """After how many milliseconds the last replica stops, or infinity when they do not all say so within a second."""
    async with watched(setting) as (caller, watches):
        since = time.monotonic()
        answer = await caller.call("POST", "/v1/rollout/pause")
        await asked_until(since + WATCHED_S, *watches)
        assert all(watch.ads(0)[0] for watch in watches), "they had shown ads"
        assert answer.body["replicas"] == 3
        return max(watch.kill_ms(since) for watch in watches) if answer.body["applied"] == 3 else inf


async def pause_one_by_signal(setting: Setting) -> float:
    """After how many milliseconds it stops, which has not heard of the switch that has stopped the others."""
    async with watched(setting) as (caller, watches):
        *others, cut_off = watches
        setting.proxy.swallows = True
        try:
            since = time.monotonic()
            await caller.call("POST", "/v1/rollout/pause")
            await asked_until(since + WATCHED_S, *watches)
            assert cut_off.ads(since + 1)[0] > 0, "the control: it has not heard of it"
            signalled = time.monotonic()
            setting.replicas[-1].signal(signal.SIGUSR1)
            await asked_until(signalled + WATCHED_S, cut_off)
            return max(cut_off.kill_ms(signalled), *(watch.kill_ms(since) for watch in others))
        finally:
            setting.proxy.swallows = False


@needs_redis
@pytest.mark.parametrize("pause", [pause_everywhere, pause_one_by_signal])
async def test_a_pause_reaches_replicas_within_a_second(setting: Setting, pause: Pause) -> None:
    async def at_once() -> bool:
        return await pause(setting) < AT_ONCE_MS

    if not ROUNDS:
        assert await happens(at_once)
    for _ in range(ROUNDS):
        kill_ms = await pause(setting)
        assert kill_ms < AT_ONCE_MS
        record(kill_ms)


async def test_without_a_fresh_snapshot_there_are_no_ads_after_300_seconds(
    database_url: str, tmp_path: Path
) -> None:
    """The service's clock runs ahead; that of the processes around it does not."""
    ahead_ms = 0
    with proxied(urlsplit(database_url).port or 0) as proxy:
        through = via(proxy, database_url)
        loaded = settings.load(data_home=str(tmp_path), port=0)
        service = await start(loaded, through, clock=lambda: system_clock() + ahead_ms)
        try:
            here = cast(Live, SimpleNamespace(home=tmp_path, url=service.url))
            campaigns = ({"time_zone": zone_of_noon()},)
            async with calling(here, await furnish(here, database_url, campaigns)) as caller:
                proxy.swallows = True
                ahead_ms = SNAPSHOT_MAX_AGE_MS - 10_000
                assert await caller.no_fill("not yet") is None
                ahead_ms = SNAPSHOT_MAX_AGE_MS + 1
                assert await caller.no_fill("too old") == "degraded"
                proxy.swallows = False
                await until(lambda: shows(caller))
        finally:
            proxy.swallows = False
            await service.stop()


def zone_of_noon() -> str:
    """Where no day ends within the next hours, and with it what was leased for it."""
    return f"Etc/GMT{time.gmtime().tm_hour - 12:+d}"  # which counts to the west


def via(proxy: Proxy, url: str) -> str:
    return url.replace(f":{urlsplit(url).port}/", f":{proxy.port}/")
