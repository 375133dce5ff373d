"""`make restart-check`: how soon the service answers when it starts with millions of events behind it; 1 where that is too late."""

import argparse
import asyncio
import os
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import aiohttp
import asyncpg
import uvloop
from redis import Redis

from adserve import settings
from adserve.access.keys import Scope
from adserve.bootstrap.core import system_clock
from adserve.bootstrap.service import start
from adserve.commands.scratch import issue_key, scratch
from adserve.database import partitions, statements
from adserve.domain.time import DAY_MS, SECOND_MS, day_of, from_ms
from adserve.settings import Settings
from adserve.simulation.seed import Api
from loadtest.generator import HOST
from loadtest.processes import redis

SQL = statements.load(Path(__file__).parent / "sql" / "restart.sql")

DAYS = 30
EVENTS_A_VIEWER = 10
ADS = 2_000
PLANTED_AT_ONCE = 250_000
TAIL = 0.02
"""The share of the events that came after the last checkpoint."""
TAIL_MS = 300 * SECOND_MS
START_MAX_S = 600.0
UNCAPPED_MAX_S = 5.0
CAPPED_MAX_S = 30.0
"""With a checkpoint, or in Redis: from the log alone is how a start goes whose checkpoint is lost, and takes as long as the log is."""
CORE = 0
"""Where Redis runs, when it is measured."""
POLL_S = 0.05
TOLD_EVERY_S = 5.0

BID = {"model": "cpm", "price": {"micros": 5_000_000, "currency": "USD"}}
CAPPED = {"caps": [{"scope": "campaign", "count": 3, "window_s": 86_400}]}


class Started(NamedTuple):
    """Seconds from the command to its first uncapped and its first capped ad; the slowest answer between them in ms; what
    the process had in memory at the end in MB."""

    uncapped_s: float
    capped_s: float
    slowest_ms: float
    rss_mb: float

    def in_time(self, capped_max_s: float = CAPPED_MAX_S) -> bool:
        return self.uncapped_s <= UNCAPPED_MAX_S and self.capped_s <= capped_max_s


class Planted(NamedTuple):
    key: str
    uncapped: int
    capped: int


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m loadtest.restart", description=__doc__)
    parser.add_argument("--events", type=int, default=5_000_000, help="events in the log (default: 5000000)")
    parser.add_argument(
        "--redis", action="store_true", help="with counters in an empty Redis: they are rebuilt"
    )
    asked = parser.parse_args()
    in_time = uvloop.run((_check_redis if asked.redis else _check)(asked.events))
    if not in_time:
        _say(
            f"too late: uncapped ads are to come within {UNCAPPED_MAX_S:g} s, capped ones within {CAPPED_MAX_S:g}"
        )
    return 0 if in_time else 1


async def _check_redis(events: int) -> bool:
    async with redis(CORE) as redis_url, scratch(settings.load(), "restart", _say, keep=False) as (own, url):
        if redis_url is None:
            raise FileNotFoundError("redis-server")
        planted = await _set_up(own, url)
        now_ms = system_clock()
        begin_ms = now_ms - DAYS * DAY_MS
        await _plant(url, events, range(events), begin_ms, (now_ms - begin_ms) / events)
        started = await _start(own, url, planted, redis_url)
        with Redis.from_url(redis_url) as client:
            used_mb = int(client.info("memory")["used_memory"]) / 1e6
    _say(f"{events:,} events of {events // EVENTS_A_VIEWER:,} viewers; seconds from the command's start:")
    _told("rebuilt in redis", started)
    _say(f"redis has {used_mb:.0f} MB")
    return started.in_time()


async def _check(events: int) -> bool:
    async with scratch(settings.load(), "restart", _say, keep=False) as (own, url):
        planted = await _set_up(own, url)
        tail, now_ms = int(events * TAIL), system_clock()
        begin_ms = now_ms - DAYS * DAY_MS
        await _plant(url, events, range(events - tail), begin_ms, (now_ms - begin_ms) / (events - tail))
        whole = await _start(own, url, planted)  # and when it stops, there is a checkpoint
        now_ms = system_clock()
        step_ms = TAIL_MS / tail
        await _plant(url, events, range(events - tail, events), now_ms - events * step_ms, step_ms)
        resumed = await _start(own, url, planted)
    _say(f"{events:,} events of {events // EVENTS_A_VIEWER:,} viewers; seconds from the command's start:")
    for name, one in (("from the log alone", whole), (f"checkpoint and {tail:,} events", resumed)):
        _told(name, one)
    return whole.in_time(capped_max_s=START_MAX_S) and resumed.in_time()


def _told(name: str, one: Started) -> None:
    _say(
        f"{name:32} uncapped ads after {one.uncapped_s:5.1f}, capped after {one.capped_s:5.1f}; slowest answer "
        f"{one.slowest_ms:.0f} ms; {one.rss_mb:.0f} MB"
    )


async def _set_up(own: Settings, url: str) -> Planted:
    service = await start(own, url)
    try:
        key = await issue_key(service.core, "restart", Scope.FEED, Scope.OPERATOR)
        media = await service.core.media.put(b"not looked into", "image/png", 1080, 1920)
        async with aiohttp.ClientSession() as session:
            api = Api(session, service.url, key)
            campaigns = [
                await _campaign(api, media, name, more) for name, more in (("free", {}), ("capped", CAPPED))
            ]
            rollout = {"surfaces": {"status": {"percent": 100}}}
            headers = {"Authorization": f"Bearer {key}"}
            async with session.put(f"{service.url}/v1/rollout", json=rollout, headers=headers) as answer:
                answer.raise_for_status()
        return Planted(key, *campaigns)
    finally:
        await service.stop()


async def _campaign(api: Api, media: str, name: str, more: dict[str, Any]) -> int:
    owner = (await api.create("/v1/advertisers", {"name": name}, name))["id"]
    amount = {"amount": {"micros": 1_000_000_000, "currency": "USD"}}
    await api.create(f"/v1/advertisers/{owner}/deposits", amount, f"{name} deposit")
    whose = {"advertiser": owner}
    campaign = (
        whose
        | {"name": name, "starts_at": "2020-01-01T00:00:00Z", "bid": BID, "billable": "impression"}
        | more
    )
    creative = whose | {
        "kind": "image", "media": media, "headline": name, "call_to_action": "shop_now",
        "landing_url": "https://example.com",
    }  # fmt: skip  # laid out as rows
    made: int = (await api.create("/v1/campaigns", campaign, f"{name} campaign"))["id"]
    shown = (await api.create("/v1/creatives", creative, f"{name} creative"))["id"]
    await api.create("/v1/ads", {"campaign": made, "creative": shown}, f"{name} ad")
    return made


async def _plant(url: str, events: int, numbers: range, begin_ms: float, step_ms: float) -> None:
    """Straight into the tables, as their owner: through the service it would take an hour."""
    connection = await asyncpg.connect(url, server_settings={"search_path": "adserve"})
    try:
        await connection.execute(SQL.become_owner)
        await partitions.ensure(connection, day_of(int(begin_ms) - DAY_MS), day_of(system_clock() + DAY_MS))
        await connection.execute(SQL.become_oneself)
        begin, step = from_ms(round(begin_ms)), timedelta(milliseconds=step_ms)
        for first in range(numbers.start, numbers.stop, PLANTED_AT_ONCE):
            last = min(first + PLANTED_AT_ONCE, numbers.stop)
            await connection.execute(SQL.plant, first, last, begin, events // EVENTS_A_VIEWER, ADS, step)
            _say(f"planted {last:,} of {events:,} events")
        if not numbers.start:
            await connection.execute(SQL.forget_checkpoint)
        await connection.execute(SQL.vacuum)
    finally:
        await connection.close()


async def _start(own: Settings, url: str, planted: Planted, redis_url: str | None = None) -> Started:
    begun = time.monotonic()
    async with _serving(own, url, redis_url) as (base_url, pid), aiohttp.ClientSession() as session:
        headers = {"Authorization": f"Bearer {planted.key}"}
        seen: dict[int, float] = {}
        slowest_ms, told_at_s = 0.0, begun
        while not seen.keys() >= {planted.uncapped, planted.capped}:
            if time.monotonic() - begun > START_MAX_S:
                raise TimeoutError(f"only campaigns {sorted(seen)} after {START_MAX_S:.0f} s")
            asked = time.monotonic()
            body = {
                "viewer": str(uuid4()),
                "surface": "status",
                "feed_length": 30,
                "max_ads": 3,
                "deadline_ms": 1_000,
            }
            try:
                async with session.post(f"{base_url}/v1/slots", json=body, headers=headers) as answer:
                    placements = (await answer.json())["placements"]
            except aiohttp.ClientConnectionError:  # not listening yet
                await asyncio.sleep(POLL_S)
                continue
            slowest_ms = max(slowest_ms, (time.monotonic() - asked) * 1_000)
            for placement in placements:
                seen.setdefault(placement["ad"]["campaign"], time.monotonic() - begun)
            if time.monotonic() - told_at_s > TOLD_EVERY_S:
                told_at_s = time.monotonic()
                await _tell(session, base_url)
            await asyncio.sleep(POLL_S)
        rss_mb = _rss_mb(pid)
    return Started(seen[planted.uncapped], seen[planted.capped], slowest_ms, rss_mb)


def _rss_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


async def _tell(session: aiohttp.ClientSession, base_url: str) -> None:
    async with session.get(f"{base_url}/readyz") as answer:
        _say(f"counters: {(await answer.json())['parts']['counters']['detail']}")


@asynccontextmanager
async def _serving(own: Settings, url: str, redis_url: str | None) -> AsyncIterator[tuple[str, int]]:
    """`adserve serve`, its address and its process."""
    with socket.socket() as free:
        free.bind((HOST, 0))
        port = free.getsockname()[1]
    ours = {
        "ADSERVE_DATABASE_URL": url, "ADSERVE_DATA_HOME": str(own.data_home), "ADSERVE_HOST": HOST,
        "ADSERVE_PORT": str(port), "ADSERVE_LOG_LEVEL": "WARNING",
    } | ({} if redis_url is None else {"ADSERVE_REDIS_URL": redis_url})  # fmt: skip  # laid out as rows
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "adserve", "serve", env=os.environ | ours, start_new_session=True
    )
    try:
        yield f"http://{HOST}:{port}", process.pid
    finally:
        process.terminate()
        await process.wait()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - the result, and how far it is


if __name__ == "__main__":
    sys.exit(main())
