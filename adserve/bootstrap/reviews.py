"""Tells how many creatives wait for a person, and for how long."""

from prometheus_client import Gauge

from adserve.background import Task
from adserve.database.pools import Pools
from adserve.store import reviews

COUNTED_S = 10.0

WAITING = Gauge("adserve_reviews_waiting", "Creatives that wait for a review.", multiprocess_mode="livemax")
OLDEST_S = Gauge(
    "adserve_reviews_oldest_seconds",
    "How long the creative has waited that has waited longest, 0 where none does.",
    multiprocess_mode="livemax",
)


def counting(pools: Pools) -> Task:
    async def count(_now_ms: int) -> None:
        async with pools.operator.acquire() as connection:
            queue = await reviews.queue(connection)
        WAITING.set(queue.creatives)
        OLDEST_S.set(queue.oldest_s)

    return Task("reviews", count, COUNTED_S)
