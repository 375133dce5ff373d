"""The spool of this machine, opened; and what empties it, with its figures."""

import asyncio
from urllib.parse import quote, urlsplit

from prometheus_client import Gauge

from adserve.domain.time import SECOND_MS
from adserve.metering.errors import JournalAway, RecorderUnavailable
from adserve.metering.spooled import Spooled
from adserve.settings import Settings, SettingsError
from adserve.store.errors import Away
from adserve.store.spool import Spool, SpoolUnusable

EVENTS = Gauge(
    "adserve_spool_events",
    "Events in this machine's spool, which wait for PostgreSQL",
    multiprocess_mode="livemax",
)
BYTES = Gauge("adserve_spool_bytes", "What they take of spool_max_bytes", multiprocess_mode="livemax")
OLDEST = Gauge(
    "adserve_spool_oldest_seconds", "Since the oldest of them was received", multiprocess_mode="livemax"
)


async def open_spool(settings: Settings, database_url: str) -> Spool:
    """One file for each database, shared by all processes of a data home. Raises SettingsError where it cannot be used."""
    name = quote(urlsplit(database_url).path[1:], safe="")
    path = settings.data_home / "spool" / f"{name}.sqlite"
    try:
        return await asyncio.to_thread(Spool.open, path, settings.spool_max_bytes)
    except SpoolUnusable as error:
        raise SettingsError(str(error)) from error


async def settle_some(spooled: Spooled, now_ms: int) -> None:
    """Raises Away, as an outage is no bug."""
    try:
        await spooled.step(now_ms)
    except (RecorderUnavailable, JournalAway) as error:
        raise Away(str(error)) from error
    finally:
        waiting = spooled.waiting
        if waiting is not None:
            EVENTS.set(waiting.events)
            BYTES.set(waiting.bytes)
            OLDEST.set((now_ms - (waiting.oldest_at_ms or now_ms)) / SECOND_MS)
