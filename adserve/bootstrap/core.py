"""What decides and records, put together and filled, without an edge; and the background tasks that keep it so."""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from uuid import uuid4

from adserve.api.beacons import Landings
from adserve.background import Task
from adserve.catalogue.refresh import Refresh
from adserve.catalogue.snapshot import Snapshot
from adserve.database import partitions
from adserve.database.pools import Pools
from adserve.database.replica_lock import BEAT_S, ServingLock
from adserve.domain.ads import Campaign
from adserve.domain.slots import Viewer
from adserve.domain.time import DAY_MS, SECOND_MS, Clock, day_of, from_ms
from adserve.limits.counters import MemoryCounters
from adserve.limits.hides import Hides
from adserve.limits.keeper import LeaseKeeper
from adserve.limits.leases import LeaseBook
from adserve.limits.rebuild import OVERLAP_MS, rebuild
from adserve.limits.rules import RETENTION_MS
from adserve.metering import rotation
from adserve.metering.intake import Intake
from adserve.metering.pseudonyms import Pseudonyms
from adserve.metering.recorder import Recorder
from adserve.metering.rotation import Rotation
from adserve.metering.tickets import Sealer
from adserve.prediction.rates import load_or_prior
from adserve.selection.slots import Bounds, Parts, Slots
from adserve.selection.state import LiveView, Switch
from adserve.settings import Settings
from adserve.store import idempotency
from adserve.store.catalogue import Catalogue
from adserve.store.checkpoints import Checkpoints
from adserve.store.journal import Journal
from adserve.store.keys import Keys
from adserve.store.ledger import Ledger
from adserve.store.media import Media
from adserve.store.secrets import Secrets
from adserve.web import limiter
from adserve.web.auth import Auth
from adserve.web.gate import Admission, Refusals
from adserve.web.limiter import Limiter

log = logging.getLogger(__name__)

Progress = Callable[[str], None]

REFRESH_S = 0.5
PARTITIONS_S = 3_600.0
SWEEP_S = 5.0
CLICKS_BACK_MS = 30 * DAY_MS
"""How far back the click rate that stands in for a model looks."""
IDEMPOTENT_S = 3_600.0
IDEMPOTENT_FOR_MS = 7 * DAY_MS
"""How long a creating call may be repeated with its Idempotency-Key."""
PARTITIONS_BEHIND_DAYS = 2
"""A ticket may be a day old when its event comes; its partition is that of the day it was issued."""


def system_clock() -> int:
    return time.time_ns() // SECOND_MS**2


def draw_128_bits() -> int:
    return secrets.randbits(128)


@dataclass(frozen=True, slots=True, kw_only=True)
class Core:
    """What decides and records, put together and filled, without an edge."""

    settings: Settings
    database_url: str
    clock: Clock
    pools: Pools
    lock: ServingLock
    catalogue: Catalogue
    media: Media
    auth: Auth
    landings: Landings
    live: LiveView
    rates_fallback: str | None
    refresh: Refresh
    rotation: Rotation
    sealer: Sealer
    pseudonyms: Pseudonyms
    counters: MemoryCounters
    checkpoints: Checkpoints
    keeper: LeaseKeeper
    journal: Journal
    recorder: Recorder
    slots: Slots
    limiter: Limiter
    admission: Admission
    refusals: Refusals
    intake: Intake

    async def ensure_partitions(self, now_ms: int) -> None:
        first = day_of(now_ms - PARTITIONS_BEHIND_DAYS * DAY_MS)
        last = day_of(now_ms + self.settings.partitions_ahead_days * DAY_MS)
        async with self.pools.owner.acquire() as connection:
            await partitions.ensure(connection, first, last)

    async def sweep(self, now_ms: int) -> None:
        self.counters.sweep(now_ms)

    async def checkpoint(self, now_ms: int) -> None:
        await self.checkpoints.save(self.counters.dump(), now_ms)

    async def forget_answers(self, now_ms: int) -> None:
        async with self.pools.operator.acquire() as connection:
            await idempotency.forget(connection, from_ms(now_ms - IDEMPOTENT_FOR_MS))

    async def refresh_keys(self, _now_ms: int) -> None:
        await self.auth.refresh()

    def viewer(self, raw: str) -> Viewer:
        return Viewer(raw, *self.pseudonyms.of(raw, self.clock()))


CATALOGUE_CHANNEL = "adserve_catalogue"
SWITCH_CHANNEL = "adserve_switch"


def tasks_of(core: Core, wakes: Mapping[str, asyncio.Event]) -> tuple[Task, ...]:
    """Every background task. The first run of each, in this order, comes before the first request."""
    return (
        Task("partitions", core.ensure_partitions, PARTITIONS_S),
        Task("secrets", core.rotation.step, rotation.PERIOD_S),
        Task("keys", core.refresh_keys, Auth.POLL_S, wakes[Auth.CHANNEL]),
        Task("catalogue", core.refresh.step, REFRESH_S, wakes[CATALOGUE_CHANNEL]),
        Task("leases", core.keeper.step, 1.0, core.keeper.wake),
        Task("sweep", core.sweep, SWEEP_S),
        Task("idempotent answers", core.forget_answers, IDEMPOTENT_S),
        Task("checkpoint", core.checkpoint, core.settings.checkpoint_interval_s),
        Task("overload", core.limiter.step, limiter.WINDOW_S),
    )


async def build_core(
    settings: Settings,
    database_url: str,
    pools: Pools,
    lock: ServingLock,
    clock: Clock,
    draw: Callable[[], int],
    progress: Progress,
) -> Core:
    """Puts the core together. Counters are filled and secrets known when this returns; no task runs yet."""
    await _alone(lock, progress)
    replica = uuid4()
    catalogue = Catalogue(pools.catalogue, replica)
    journal, checkpoints = Journal(pools.recorder), Checkpoints(pools.recorder)
    sealer, pseudonyms, book = Sealer(), Pseudonyms(), LeaseBook()
    rates, rates_fallback = load_or_prior(
        settings.model_path, await catalogue.click_counts(clock() - CLICKS_BACK_MS)
    )
    live, landings = LiveView(settings.surfaces, rates), Landings(catalogue)

    async def publish(snapshot: Snapshot, switch: Switch, confirmed_at_ms: int) -> None:
        landings.learn(snapshot)
        await live.publish(snapshot, switch, confirmed_at_ms)

    def campaigns() -> Iterable[Campaign]:
        return {ad.campaign.id: ad.campaign for ad in live.current().snapshot.ads}.values()

    counters = await rebuilt_counters(checkpoints, journal, clock(), progress)
    recorder = _recorder(settings, journal)

    def may_serve() -> bool:
        return lock.may_serve(system_clock())

    slots = Slots(
        Parts(live.current, counters, Hides(), book, sealer, may_serve),
        clock,
        draw,
        Bounds(settings.candidates_max, settings.click_hold_factor),
    )
    admitting = Limiter(time.perf_counter, time.thread_time)
    return Core(
        settings=settings,
        database_url=database_url,
        clock=clock,
        pools=pools,
        lock=lock,
        catalogue=catalogue,
        media=Media(settings.data_home / "media", pools.operator),
        auth=Auth(Keys(pools.catalogue)),
        landings=landings,
        live=live,
        rates_fallback=rates_fallback,
        refresh=Refresh(catalogue, publish),
        rotation=Rotation(Secrets(pools.catalogue), sealer, pseudonyms),
        sealer=sealer,
        pseudonyms=pseudonyms,
        counters=counters,
        checkpoints=checkpoints,
        keeper=LeaseKeeper(book, Ledger(pools.recorder), campaigns, replica),
        journal=journal,
        recorder=recorder,
        slots=slots,
        limiter=admitting,
        admission=Admission(slots, admitting, clock, draw),
        refusals=Refusals(clock, draw),
        intake=Intake(sealer, counters, book, recorder, draw, may_serve=may_serve),
    )


def _recorder(settings: Settings, journal: Journal) -> Recorder:
    return Recorder(
        journal,
        writers=settings.recorder_writers,
        batch_rows_max=settings.batch_rows_max,
        events_queued_max=settings.events_queued_max,
    )


async def _alone(lock: ServingLock, progress: Progress) -> None:
    while not lock.may_serve(system_clock()):
        progress("an earlier process may still serve; waiting until it cannot")
        await asyncio.sleep(BEAT_S)
        await lock.keep(system_clock())


async def rebuilt_counters(
    checkpoints: Checkpoints, journal: Journal, now_ms: int, progress: Progress
) -> MemoryCounters:
    """The counters of a new epoch, from the last checkpoint and the events since."""
    counters = MemoryCounters(await checkpoints.open_epoch(now_ms))
    taken_at_ms, parts = await checkpoints.newest() or (now_ms - RETENTION_MS + OVERLAP_MS, [])
    since_ms = taken_at_ms - OVERLAP_MS
    read = await rebuild(counters, parts, journal.since(since_ms), since_ms, progress)
    if read:
        progress(f"counters: {len(counters):,} viewers, {read:,} events since the last checkpoint")
    return counters
