"""What a serving process weighs before and after a load: requests with an id of their own each, of many viewers.

python -m loadtest.memory [campaigns …]
"""

import asyncio
import os
import sys

import orjson
import uvloop

from adserve import settings
from adserve.bootstrap.server import database_server
from adserve.commands.scratch import scratch
from loadtest import market
from loadtest.generator import load, post
from loadtest.planting import plant
from loadtest.processes import cores, rss_mb, serving
from loadtest.servers import Wanted

CAMPAIGNS = (10_000, 100_000)
VIEWERS = 20_000
ROUNDS = 3
"""Of a request a viewer."""
CONNECTIONS = 16
READ_EVERY_S = 0.5
READ_WITHIN_S = 120.0


async def measure(server_url: str, campaigns: int) -> None:
    own = settings.load(database_url=server_url)
    async with scratch(own, "memory", say, keep=False) as (own, url):
        wanted = Wanted(database_url=url, folder=str(own.data_home))
        async with serving("adserve", cores().server, wanted) as service:
            started_mb = rss_mb(service.pid)
            await plant(url, service, market.brands(campaigns, 1))
            bodies = market.slot_requests(VIEWERS, 1)
            requests = [post("/v1/slots", orjson.dumps(body), service.key) for body in bodies]
            await until_filled(service.port, requests[:100])
            read_mb = rss_mb(service.pid)
            for _ in range(ROUNDS):
                await load(service.port, requests, connections=CONNECTIONS)
            say(
                f"{campaigns:,} campaigns: {started_mb:,.0f} MB without any, {read_mb:,.0f} MB when they are read, "
                f"{rss_mb(service.pid):,.0f} MB after {ROUNDS * VIEWERS:,} requests"
            )


async def until_filled(port: int, requests: list[bytes]) -> None:
    """Raises TimeoutError when the ads of a new market do not come."""
    async with asyncio.timeout(READ_WITHIN_S):
        while True:
            bodies = (await load(port, requests, connections=1, kept_every=1)).bodies
            if sum(b'"placements":[]' in body for body in bodies) < len(bodies) / 10:
                return
            await asyncio.sleep(READ_EVERY_S)


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - the result


async def main(sizes: tuple[int, ...]) -> None:
    async with database_server(settings.load(), say) as server_url:
        os.sched_setaffinity(0, {cores().generator})
        for campaigns in sizes:
            await measure(server_url, campaigns)


if __name__ == "__main__":
    uvloop.run(main(tuple(map(int, sys.argv[1:])) or CAMPAIGNS))
