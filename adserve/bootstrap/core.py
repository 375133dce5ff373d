"""What decides and records, put together and filled, without an edge; and the background tasks that keep it so."""

import asyncio
import logging
import os
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import uuid4

from prometheus_client import Counter, Gauge

from adserve.api.beacons import Landings
from adserve.background import Task
from adserve.bootstrap.filling import filling_of, save_checkpoint
from adserve.bootstrap.outcomes import Judged
from adserve.bootstrap.privacy import Privacy
from adserve.bootstrap.spooling import open_spool, settle_some
from adserve.bootstrap.traffic import TRAFFIC_S, TrafficKeeper, keeper_of
from adserve.catalogue.refresh import Publish, Refresh
from adserve.catalogue.snapshot import Snapshot
from adserve.database import partitions
from adserve.database.pools import Pools
from adserve.database.replica_lock import BEAT_S, ServingLock
from adserve.database.shared_serving import SharedServing
from adserve.domain.ads import Campaign
from adserve.domain.slots import Viewer
from adserve.domain.time import DAY_MS, HOUR_MS, SECOND_MS, Clock, day_of, from_ms
from adserve.limits.counters import MemoryCounters
from adserve.limits.erased import Erased
from adserve.limits.hides import HideReader, Hides
from adserve.limits.keeper import LEASES_S, LeaseKeeper
from adserve.limits.leases import LeaseBook
from adserve.limits.rebuild import Filling
from adserve.metering import rotation, spooled
from adserve.metering.intake import Intake
from adserve.metering.named import Named
from adserve.metering.pending import Pending
from adserve.metering.pseudonyms import Pseudonyms
from adserve.metering.recorder import Recorder
from adserve.metering.rotation import Rotation
from adserve.metering.spooled import Spooled
from adserve.metering.tickets import Sealer
from adserve.prediction import prior, quality
from adserve.prediction.model import Model
from adserve.prediction.prior import Prior
from adserve.prediction.quality import Qualities
from adserve.prediction.rates import load_or_prior
from adserve.selection.funnel import Funnel
from adserve.selection.recording import Recording
from adserve.selection.slots import Bounds, Parts
from adserve.selection.state import LiveView, Switch
from adserve.selection.watched import Watched
from adserve.settings import Settings
from adserve.store import exports, idempotency
from adserve.store.catalogue import Catalogue
from adserve.store.checkpoints import Checkpoints
from adserve.store.counters import RedisCounters
from adserve.store.decisions import Decisions
from adserve.store.funnel import FunnelStore
from adserve.store.journal import Journal
from adserve.store.keys import Keys
from adserve.store.ledger import Ledger
from adserve.store.media import Media
from adserve.store.secrets import Secrets
from adserve.store.shared_counters import SharedCounters
from adserve.store.spool import Spool
from adserve.store.spools import EventLog, Spools
from adserve.web import limiter
from adserve.web.auth import Auth
from adserve.web.gate import Admission, Refusals
from adserve.web.limiter import Limiter

DECISIONS_SHED = Counter(
    "adserve_recorded_decisions_shed", "Decisions that were to be recorded and were not."
)

log = logging.getLogger(__name__)

Progress = Callable[[str], None]

COUNTERS_READY = Gauge(
    "adserve_counters_ready", "1 while the counters know what was shown", multiprocess_mode="livemin"
)
EVENTS_PENDING = Gauge(
    "adserve_events_pending", "Events that wait for the counters", multiprocess_mode="livemax"
)

REFRESH_S = 0.5
CATALOGUE_PACE_S = 0.2
"""While change follows upon change, most of the time still belongs to requests."""
PARTITIONS_S = 3_600.0
SWEEP_S = 5.0
HIDES_S = 5.0
PENDING_S = 1.0
CLICKS_BACK_MS = 30 * DAY_MS
"""How far back the click rate that stands in for a model looks."""
IDEMPOTENT_S = 3_600.0
IDEMPOTENT_FOR_MS = 7 * DAY_MS
"""How long a creating call may be repeated with its Idempotency-Key."""
EXPORTS_FOR_MS = 30 * DAY_MS
"""How long an export is known after it was asked for."""
FUNNEL_MERGED_S = 60.0
MEDIA_SWEPT_S = 3_600.0
DRAW_BYTES = 16
DRAWS_AT_ONCE = 256
PARTITIONS_BEHIND_DAYS = 2
"""A ticket may be a day old when its event comes; its partition is that of the day it was issued."""


def system_clock() -> int:
    return time.time_ns() // SECOND_MS**2


def steady_clock() -> int:
    """For how long, never for when: nobody sets it, and it goes on while the machine sleeps."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // SECOND_MS**2


def _draws() -> Iterator[int]:
    while True:
        for (drawn,) in struct.iter_unpack(f"{DRAW_BYTES}s", os.urandom(DRAWS_AT_ONCE * DRAW_BYTES)):
            yield int.from_bytes(drawn, "big")


draw_128_bits = _draws().__next__
"""From the system's chance, which takes longer to be asked than to answer. For one thread."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Core:
    """What decides and records, put together and filled, without an edge."""

    settings: Settings
    database_url: str
    clock: Clock
    pools: Pools
    lock: ServingLock | SharedServing
    catalogue: Catalogue
    media: Media
    auth: Auth
    landings: Landings
    live: LiveView
    rates_fallback: str | None
    refresh: Refresh
    qualities: Qualities
    rotation: Rotation
    sealer: Sealer
    pseudonyms: Pseudonyms
    counters: MemoryCounters | RedisCounters
    filling: Filling | SharedCounters
    pending: Pending
    hides: HideReader
    checkpoints: Checkpoints
    keeper: LeaseKeeper
    events: EventLog
    spooled: Spooled
    recorder: Recorder
    slots: Watched
    judged: Judged
    limiter: Limiter
    admission: Admission
    refusals: Refusals
    intake: Intake
    recording: Recording
    decisions: Decisions
    funnel: Funnel
    funnel_store: FunnelStore
    traffic: TrafficKeeper
    privacy: Privacy

    async def ensure_partitions(self, now_ms: int) -> None:
        first = day_of(now_ms - PARTITIONS_BEHIND_DAYS * DAY_MS)
        last = day_of(now_ms + self.settings.partitions_ahead_days * DAY_MS)
        async with self.pools.owner.acquire() as connection:
            await partitions.ensure(connection, first, last)

    async def sweep(self, now_ms: int) -> None:
        # Shared ones expire by themselves, and are no checkpoint's.
        if isinstance(self.counters, MemoryCounters):
            self.counters.sweep(now_ms)

    async def checkpoint(self, now_ms: int) -> None:
        await save_checkpoint(self.counters, self.checkpoints, now_ms)

    async def settle_pending(self, now_ms: int) -> None:
        COUNTERS_READY.set(self.counters.filled)
        if not self.lock.may_serve(steady_clock()):
            return  # they are for whoever serves to judge
        await self.pending.step(now_ms)
        EVENTS_PENDING.set(self.pending.waiting)

    async def settle_spooled(self, now_ms: int) -> None:
        await settle_some(self.spooled, now_ms)

    async def weigh_hides(self, now_ms: int) -> None:
        self.refresh.weigh(await self.qualities.step(now_ms))

    async def count_clicks(self, now_ms: int) -> None:
        rates = self.live.current().rates
        if isinstance(rates, Prior):
            counts = await _click_counts(self.catalogue, now_ms)
            if not rates.knows(counts):
                self.live.predict_by(Prior(counts))

    async def forget_answers(self, now_ms: int) -> None:
        async with self.pools.operator.acquire() as connection:
            await idempotency.forget(connection, from_ms(now_ms - IDEMPOTENT_FOR_MS))
            await exports.forget(connection, from_ms(now_ms - EXPORTS_FOR_MS))

    async def forget_decisions(self, now_ms: int) -> None:
        first_kept = day_of(now_ms - self.settings.decisions_kept_days * DAY_MS)
        async with self.pools.owner.acquire() as connection:
            await partitions.drop(connection, "recorded_decisions", first_kept)
        await self.decisions.forget_versions(first_kept)

    async def forget_origins(self, now_ms: int) -> None:
        first_kept = day_of(now_ms - self.settings.origins_kept_days * DAY_MS)
        async with self.pools.owner.acquire() as connection:
            await partitions.drop(connection, "event_origins", first_kept)

    async def refresh_keys(self, _now_ms: int) -> None:
        await self.auth.refresh()

    def viewer(self, raw: str) -> Viewer:
        return Viewer(raw, *self.pseudonyms.of(raw, self.clock()))


CATALOGUE_CHANNEL = "adserve_catalogue"
SWITCH_CHANNEL = "adserve_switch"


def first_tasks_of(core: Core, wakes: Mapping[str, asyncio.Event]) -> tuple[Task, ...]:
    """The background tasks whose first run, in this order, comes before the first request."""
    return (
        Task("partitions", core.ensure_partitions, PARTITIONS_S),
        Task("secrets", core.rotation.step, rotation.PERIOD_S, needed=True),
        Task("keys", core.refresh_keys, Auth.POLL_S, wakes[Auth.CHANNEL]),
        Task("traffic rules", core.traffic.step, TRAFFIC_S),
        Task("qualities", core.weigh_hides, quality.PERIOD_S),
        Task("catalogue", core.refresh.step, REFRESH_S, wakes[CATALOGUE_CHANNEL], CATALOGUE_PACE_S),
        Task("switch", core.refresh.switch, REFRESH_S, wakes[SWITCH_CHANNEL]),
        Task("leases", core.keeper.step, LEASES_S, core.keeper.wake, needed=True),
        Task("hides", core.hides.step, HIDES_S),
        core.privacy.erasures(wakes),
    )


def later_tasks_of(core: Core) -> tuple[Task, ...]:
    """Those that no request needs: a start that waited for a checkpoint to be written would be late by seconds."""
    return (
        Task("spool", core.settle_spooled, 1.0, core.spooled.wake, spooled.PACE_S),
        Task("pending events", core.settle_pending, PENDING_S),
        Task("sweep", core.sweep, SWEEP_S),
        Task("idempotent answers", core.forget_answers, IDEMPOTENT_S),
        Task("checkpoint", core.checkpoint, core.settings.checkpoint_interval_s),
        Task("click rates", core.count_clicks, prior.PERIOD_S),
        Task("recorded decisions", core.recording.step, 1.0),
        Task("old decisions", core.forget_decisions, PARTITIONS_S),
        Task("old origins", core.forget_origins, PARTITIONS_S),
        Task("funnel", core.funnel.step, 1.0),
        Task("funnel's hours", core.funnel_store.merge, FUNNEL_MERGED_S),
        Task("partial media", core.media.sweep, MEDIA_SWEPT_S),
        Task("overload", core.limiter.step, limiter.WINDOW_S),
        *core.judged.tasks(core.settings.outcomes_kept_days),
        *core.privacy.later_tasks(),
    )


async def build_core(
    settings: Settings,
    database_url: str,
    pools: Pools,
    lock: ServingLock | SharedServing,
    clock: Clock,
    draw: Callable[[], int],
) -> Core:
    """Puts the core together. The counters are empty and no secrets known when this returns; no task runs yet."""
    catalogue = Catalogue(pools.catalogue, replica := uuid4())
    journal, checkpoints = Journal(pools.recorder), Checkpoints(pools.recorder)
    erased, pseudonyms, book = Erased(), Pseudonyms(), LeaseBook()
    sealer, hides = Sealer(erased=erased), Hides(erased)
    rates, rates_fallback = await _rates(settings, catalogue, clock())
    live, landings = LiveView(settings.surfaces, rates), Landings(catalogue)
    events = EventLog(journal, await open_spool(settings, database_url))
    filling = await filling_of(settings, pools, checkpoints, journal, events, erased, lock, clock())
    counters, recorder = filling.counters, _recorder(settings, journal, events.spool)
    named, checkpoint = Named(counters), partial(save_checkpoint, counters, checkpoints)
    decisions, funnel_store = Decisions(pools.recorder), FunnelStore(pools.recorder, replica)
    recording = Recording(decisions, settings.decision_sample_rate, DECISIONS_SHED.inc, erased)
    funnel, traffic = Funnel(funnel_store, clock()), keeper_of(settings, pools.recorder, pseudonyms)
    notes = (funnel.note, recording.note)
    parts = Parts(live.current, counters, hides, book, sealer, may_serve := _serving(lock), notes)
    keeper = LeaseKeeper(book, Ledger(pools.recorder), _campaigns(live), replica)
    judged = Judged(pools, replica, erased, keeper.off_pace, live.current)
    slots = judged.watched(parts, clock, draw, Bounds(settings.candidates_max, settings.click_hold_factor))
    intake = Intake(
        sealer, named, book, recorder, draw, hides=hides, may_serve=may_serve, traffic=traffic.traffic
    )
    keepers = events.spool, traffic.traffic, judged.assignments
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
        refresh=Refresh(catalogue, _publishing(landings, live, slots), live.obey),
        qualities=Qualities(catalogue.hide_counts),
        rotation=Rotation(Secrets(pools.catalogue), sealer, pseudonyms),
        sealer=sealer,
        pseudonyms=pseudonyms,
        counters=counters,
        filling=filling,
        pending=Pending(journal, named),
        hides=HideReader(hides, events),
        checkpoints=checkpoints,
        keeper=keeper,
        events=events,
        spooled=_spooled(settings, pools, events, recorder, counters),
        recorder=recorder,
        slots=slots,
        judged=judged,
        recording=recording,
        decisions=decisions,
        funnel=funnel,
        funnel_store=funnel_store,
        limiter=(admitting := Limiter(time.perf_counter, time.thread_time)),
        admission=Admission(slots, admitting, clock, draw),
        refusals=Refusals(clock, draw),
        privacy=Privacy(pools, erased, hides, counters, checkpoint, keepers, judged.store),
        intake=intake,
        traffic=traffic,
    )


async def _rates(settings: Settings, catalogue: Catalogue, now_ms: int) -> tuple[Model | Prior, str | None]:
    return load_or_prior(settings.model_path, await _click_counts(catalogue, now_ms))


async def _click_counts(catalogue: Catalogue, now_ms: int) -> dict[int, tuple[int, int]]:
    return await catalogue.click_counts(now_ms - CLICKS_BACK_MS, now_ms + HOUR_MS)


def _serving(lock: ServingLock | SharedServing) -> Callable[[], bool]:
    return lambda: lock.may_serve(steady_clock())


def _publishing(landings: Landings, live: LiveView, slots: Watched) -> Publish:
    async def publish(snapshot: Snapshot, switch: Switch, confirmed_at_ms: int) -> None:
        landings.learn(snapshot)
        await live.publish(snapshot, switch, confirmed_at_ms)
        slots.follow(snapshot)

    return publish


def _campaigns(live: LiveView) -> Callable[[], Mapping[Any, Campaign]]:
    return lambda: live.current().snapshot.campaigns


def _spooled(
    settings: Settings,
    pools: Pools,
    events: EventLog,
    recorder: Recorder,
    counters: MemoryCounters | RedisCounters,
) -> Spooled:
    most = round(settings.spool_rows_per_s * spooled.PACE_S)
    return Spooled(events.spool, events.journal, Spools(pools.recorder), recorder, counters, most)


def _recorder(settings: Settings, journal: Journal, spool: Spool) -> Recorder:
    return Recorder(
        journal,
        spool,
        writers=settings.recorder_writers,
        batch_rows_max=settings.batch_rows_max,
        events_queued_max=settings.events_queued_max,
    )


async def alone(lock: ServingLock | SharedServing, progress: Progress) -> None:
    while not lock.may_serve(steady_clock()):
        progress("an earlier process may still serve; waiting until it cannot")
        await asyncio.sleep(BEAT_S)
        await lock.keep(steady_clock())
