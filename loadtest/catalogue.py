"""How long a process takes to read a large catalogue and one change of it, how long its event loop stands still meanwhile,
and what it weighs.

python -m loadtest.catalogue [campaigns]
"""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median
from typing import NamedTuple
from uuid import UUID

import asyncpg
import uvloop

from adserve import settings
from adserve.bootstrap.core import system_clock
from adserve.bootstrap.memory import collect_rarely
from adserve.catalogue.snapshot import EMPTY, Snapshot
from adserve.commands.scratch import scratch
from adserve.database.pools import Pools, open_pools
from adserve.prediction.prior import Prior
from adserve.selection.state import LiveView
from adserve.store.catalogue import Catalogue
from adserve.store.media import Media
from loadtest import market
from loadtest.planting import SQL, plant_brands

CAMPAIGNS = 10_000
CHANGES = 21
BEAT_S = 0.001
PAGE_BYTES = 4_096


class Switch(NamedTuple):
    switch_version: int = 1
    paused: bool = False


class Taken(NamedTuple):
    """`stall_ms` is the longest that the event loop did nothing else."""

    ms: float
    stall_ms: float


async def timed(work: Callable[[], Awaitable[Snapshot]]) -> tuple[Snapshot, Taken]:
    late_s = [0.0]

    async def beat() -> None:
        while True:
            before_s = time.perf_counter()
            await asyncio.sleep(BEAT_S)
            late_s.append(time.perf_counter() - before_s - BEAT_S)

    heart = asyncio.create_task(beat())
    await asyncio.sleep(5 * BEAT_S)
    late_s.clear()
    started_s = time.perf_counter()
    done = await work()
    took_s = time.perf_counter() - started_s
    await asyncio.sleep(5 * BEAT_S)
    heart.cancel()
    return done, Taken(took_s * 1_000, max(late_s) * 1_000)


async def measure(pools: Pools, database_url: str, folder: Path, campaigns: int) -> None:
    picture = await Media(folder / "media", pools.operator).put(b"nobody looks", "image/webp", 1080, 1920)
    brands = market.brands(campaigns, 1)
    started_s = time.perf_counter()
    await plant_brands(database_url, picture, brands)
    say(f"planted {campaigns:,} campaigns in {time.perf_counter() - started_s:.1f} s")
    del brands
    collect_rarely()
    catalogue = Catalogue(pools.catalogue, UUID(int=1))
    live = LiveView(settings.load().surfaces, Prior({}))
    before_mb = resident_mb()

    async def read(known: Snapshot) -> Snapshot:
        return await catalogue.load(known, system_clock())

    async def compiled(snapshot: Snapshot) -> Snapshot:
        await live.publish(snapshot, Switch(), 0)
        return snapshot

    async def renewed(known: Snapshot) -> Snapshot:
        return await compiled(await read(known))

    snapshot, reading = await timed(lambda: read(EMPTY))
    _, compiling = await timed(lambda: compiled(snapshot))
    say(f"all read in {reading.ms:,.0f} ms (stall {reading.stall_ms:.1f} ms), compiled in {compiling.ms:,.0f} ms "
        f"(stall {compiling.stall_ms:.1f} ms), {resident_mb() - before_mb:,.0f} MB")  # fmt: skip  # laid out as rows
    connection = await asyncpg.connect(database_url)
    changes = []
    for ad in snapshot.ads[:CHANGES]:
        await connection.execute(SQL.change, ad.campaign.id)
        known = live.current().snapshot
        changes.append((await timed(lambda known=known: renewed(known)))[1])  # type: ignore[misc]  # a bound name in a lambda has no type
    await connection.close()
    say(f"one change read and compiled in {median(taken.ms for taken in changes):.1f} ms, stall "
        f"{median(taken.stall_ms for taken in changes):.1f} ms, at most {max(taken.stall_ms for taken in changes):.1f} ms")  # fmt: skip  # laid out as rows


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES / 1e6


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - the result


async def main(campaigns: int) -> None:
    async with scratch(settings.load(), "catalogue", say, keep=False) as (own, url):
        pools = await open_pools(url)
        try:
            await measure(pools, url, own.data_home, campaigns)
        finally:
            await pools.close()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]) if sys.argv[1:] else CAMPAIGNS))
