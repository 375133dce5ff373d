"""What keeps viewers' keys no longer than they may be kept: erasures, and deletion on schedule."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from prometheus_client import Gauge

from adserve.api.viewers import ViewersApi
from adserve.background import Task
from adserve.database import partitions
from adserve.database.pools import Pools
from adserve.domain.time import DAY_MS, SECOND_MS, Clock, day_of
from adserve.limits.counters import CountersAway, MemoryCounters
from adserve.limits.erased import Erased
from adserve.limits.hides import Hides
from adserve.limits.rules import RETENTION_MS
from adserve.metering import erasing
from adserve.metering.erasing import Erasing, Keeper
from adserve.metering.pseudonyms import Pseudonyms
from adserve.store.counters import RedisCounters
from adserve.store.erasures import Erasures
from adserve.store.errors import Away
from adserve.store.outcomes import Outcomes
from adserve.store.secrets import Secrets
from adserve.store.viewers import Viewers

CHANNEL = "adserve_erasures"
FORGET_S = 3_600.0
INDEX_S = 60.0
NAMING = ("viewer_caps", "viewer_log", "recorded_decisions")
"""The tables by day that name viewers."""
CLOSED_MS = DAY_MS
"""Tickets of a day before that of this long ago have ended: few events of them come yet."""

ERASURES = Gauge("adserve_erasures", "Viewers whose erasure has not ended", multiprocess_mode="livemax")
ERASURE_AGE = Gauge(
    "adserve_erasure_age_seconds", "How long the oldest of them has taken so far", multiprocess_mode="livemax"
)


class Privacy:
    """`erased` is what every part asks that could bring an erased viewer back."""

    def __init__(
        self,
        pools: Pools,
        erased: Erased,
        hides: Hides,
        counters: MemoryCounters | RedisCounters,
        checkpoint: Callable[[int], Awaitable[None]],
        keepers: Sequence[Keeper],
        outcomes: Outcomes,
    ) -> None:
        self._pools = pools
        self._counters = counters
        self._secrets = Secrets(pools.catalogue)
        self._erasures = Erasures(pools.recorder)
        self._outcomes = outcomes
        heard = (counters.pasts,) if isinstance(counters, RedisCounters) else ()
        self._erasing = Erasing(
            self._erasures, erased, hides, counters, checkpoint, (*keepers, *heard), outcomes
        )

    def erasures(self, wakes: Mapping[str, asyncio.Event]) -> Task:
        """To be run before anything of an erased viewer may come."""
        return Task("erasures", self.erase, erasing.PERIOD_S, wakes[CHANNEL])

    def later_tasks(self) -> tuple[Task, ...]:
        return (
            Task("viewers' keys", self.forget, FORGET_S),
            Task("viewers' index", self.index, INDEX_S),
        )

    def api(self, pseudonyms: Pseudonyms, clock: Clock, draw: Callable[[], int]) -> ViewersApi:
        viewers = Viewers(self._pools.recorder)
        return ViewersApi(pseudonyms, self._erasures, viewers, self._outcomes, self._counters, clock, draw)

    async def erase(self, now_ms: int) -> None:
        try:
            await self._erasing.step(now_ms)
        except (CountersAway, TimeoutError) as error:
            raise Away(f"erasures wait: {error}") from error
        finally:
            ERASURES.set(self._erasing.waiting)
            ERASURE_AGE.set(self._erasing.age_ms(now_ms) / SECOND_MS)

    async def forget(self, now_ms: int) -> None:
        """The keys of viewers that are old enough, and the secrets and tombstones that nothing needs any more."""
        before_ms = now_ms - RETENTION_MS
        await self._secrets.destroy(now_ms)
        await self._erasures.forget_tombstones()
        await self._erasures.strip_old(before_ms)
        async with self._pools.owner.acquire() as connection:
            for parent in NAMING:
                await partitions.drop(connection, parent, day_of(before_ms))

    async def index(self, now_ms: int) -> None:
        """So that a viewer's tickets of a day are found without a look at all of them."""
        async with self._pools.owner.acquire() as connection:
            await partitions.index_closed(connection, "viewer_caps", ("viewer",), day_of(now_ms - CLOSED_MS))
