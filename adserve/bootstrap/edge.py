"""The HTTP edge of a core: every resource of the API, the wrapper, and the checks of /readyz."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from aiohttp import ClientSession

from adserve.api.ads import Ads
from adserve.api.advertisers import Advertisers
from adserve.api.beacons import Beacons
from adserve.api.campaigns import Campaigns
from adserve.api.charges import Charges
from adserve.api.creatives import Creatives, MediaFiles, form_of
from adserve.api.decisions import Decisions
from adserve.api.delivery import Delivery
from adserve.api.diagnoses import Diagnoses
from adserve.api.estimates import Estimates
from adserve.api.events import EventsApi
from adserve.api.exports import Exports
from adserve.api.feed import Bounds as FeedBounds
from adserve.api.feed import Feed
from adserve.api.feed import Slots as AnySlots
from adserve.api.health import Health, Part
from adserve.api.impressions import Impressions
from adserve.api.invoices import Invoices
from adserve.api.keys import KeysApi
from adserve.api.placements import PlacementEncoder
from adserve.api.ramps import RampsApi
from adserve.api.reconciliation import ReconciliationApi
from adserve.api.reports import Reports
from adserve.api.reviews import Reviews
from adserve.api.rollout import RolloutApi
from adserve.api.slots import DEADLINE_DEFAULT_MS, SlotsApi
from adserve.api.traffic import TrafficApi
from adserve.api.upstream import Upstream
from adserve.background import LONG_S, Failure
from adserve.bootstrap.core import Core, draw_128_bits, steady_clock
from adserve.bootstrap.peers import Peers
from adserve.bootstrap.traffic import trusted_proxies
from adserve.catalogue.snapshot import SNAPSHOT_MAX_AGE_MS
from adserve.creatives.sandbox import Sandbox
from adserve.creatives.uploads import Uploads
from adserve.database.replica_lock import Serving
from adserve.domain.time import SECOND_MS
from adserve.limits.counters import MemoryCounters
from adserve.pages.console.handlers import ConsolePages
from adserve.store.desk import Desk
from adserve.store.sessions import Sessions
from adserve.web.gate import Admission
from adserve.web.operations import Operation
from adserve.web.sources import Sources


class Resource(Protocol):
    def operations(self) -> list[Operation]: ...


SILENCE_MAX_MS = 5 * SECOND_MS
"""The snapshot is asked for twice a second: without an answer for so long, PostgreSQL hangs."""

Witness = Callable[[Admission], AnySlots]
"""What stands before the slots that the wrapper asks."""


def slots_api_of(core: Core) -> SlotsApi:
    settings = core.settings
    return SlotsApi(
        core.admission,
        core.sealer,
        core.pseudonyms,
        PlacementEncoder(settings.base_url),
        core.clock,
        surfaces={name: surface.currency for name, surface in settings.surfaces.items()},
        feed_items_max=settings.feed_items_max,
        deadline_max_ms=settings.decision_deadline_max_ms,
    )


def events_api_of(core: Core) -> EventsApi:
    return EventsApi(core.intake, core.events, core.sealer, core.clock)


def operations_of(
    core: Core,
    slots: SlotsApi,
    session: ClientSession,
    witness: Witness,
    failures: Callable[[], Mapping[str, Failure]],
    peers: Peers | None = None,
) -> list[Operation]:
    """The whole API; `failures` are the background tasks that fail now, with the reason."""
    settings, clock = core.settings, core.clock
    most = settings.media_max_bytes
    staff, analysts = (
        Desk(core.pools.tenant, core.pools.operator),
        Desk(core.pools.tenant, core.pools.analyst),
    )
    resources: Sequence[Resource] = (
        slots,
        *_feeds(core, session, witness),
        events_api_of(core),
        Beacons(core.intake, core.sealer, core.landings, Sources(trusted_proxies(settings)), clock),
        Advertisers(staff, clock),
        Campaigns(staff, clock),
        Estimates(staff, analysts, core.live.current, clock),
        Diagnoses(staff, core.live.current, settings.surfaces, core.keeper.keeps_back, clock),
        Creatives(staff, Uploads(Sandbox(most), core.media), form_of(core.media, most)),
        MediaFiles(core.media),
        Ads(staff),
        Reviews(staff, settings.base_url),
        RolloutApi(staff, settings.surfaces),
        RampsApi(staff, settings.surfaces, clock),
        core.judged.api(core.pseudonyms, settings.surfaces, clock),
        Impressions(analysts),
        Reports(analysts, clock),
        Delivery(analysts, clock),
        Exports(staff, analysts, clock),
        TrafficApi(staff, analysts, lambda: core.traffic.networks.digest, clock),
        Decisions(analysts),
        Charges(analysts),
        ReconciliationApi(analysts),
        Invoices(staff, clock, settings.seller),
        KeysApi(staff, clock),
        core.privacy.api(core.pseudonyms, clock, draw_128_bits),
        _health(core, failures, peers),
    )
    return [operation for resource in resources for operation in resource.operations()]


def console_of(core: Core, operations: Sequence[Operation]) -> ConsolePages:
    sessions = Sessions(Desk(core.pools.tenant, core.pools.operator))
    return ConsolePages(operations, core.auth, sessions, core.settings.surfaces, core.clock)


def _feeds(core: Core, session: ClientSession, witness: Witness) -> list[Feed]:
    """The wrapper, when there is an upstream to wrap."""
    settings = core.settings
    if settings.upstream_url is None:
        return []
    feed = Feed(
        Upstream(session, settings.upstream_url),
        witness(core.admission),
        core.auth,
        viewer=core.viewer,
        encode=PlacementEncoder(settings.base_url).placement,
        wrapped=core.slots.wrapped,
        surface=next(iter(settings.surfaces)),
        bounds=FeedBounds(DEADLINE_DEFAULT_MS, settings.feed_body_max_bytes, settings.feed_items_max),
    )
    return [feed]


def _health(core: Core, failures: Callable[[], Mapping[str, Failure]], peers: Peers | None) -> Health:
    if peers is None:
        return Health(_checks(core, failures))

    def workers() -> Part:
        return Part(True, f"{peers.others.alive} of {peers.others.wanted}, this is number {peers.worker}")

    return Health({**_checks(core, failures), "workers": workers}, peers.metrics)


def _checks(core: Core, failures: Callable[[], Mapping[str, Failure]]) -> dict[str, Callable[[], Part]]:
    def snapshot_age_ms() -> int:
        return core.clock() - core.live.current().fresh_at_ms

    def snapshot() -> Part:
        age_ms = snapshot_age_ms()
        return Part(age_ms <= SNAPSHOT_MAX_AGE_MS, f"confirmed {age_ms // SECOND_MS} s ago")

    def database() -> Part:
        """Ads are decided without it as long as the snapshot holds, and events recorded as long as the spool takes them."""
        if core.lock.state is Serving.DISCONNECTED:
            return Part(False, "cannot be reached", needed=False)
        silent = snapshot_age_ms() > SILENCE_MAX_MS
        return Part(not silent, "does not answer" if silent else "connected", needed=False)

    def counters() -> Part:
        """What needs no counts is served without them."""
        state = core.filling.detail
        if isinstance(core.counters, MemoryCounters) and core.counters.filled:
            state = f"epoch {core.counters.epoch}, {len(core.counters)} viewers"
        waiting = core.pending.waiting
        return Part(True, f"{state}; {waiting} events wait for them" if waiting else state)

    def spool() -> Part:
        waiting, away, trouble = core.spooled.waiting, core.recorder.away, core.events.spool.trouble
        if waiting is not None and waiting.events:
            age_s = (core.clock() - (waiting.oldest_at_ms or core.clock())) // SECOND_MS
            state = f"{waiting.events:,} events, {waiting.bytes:,} bytes, the oldest received {age_s} s ago"
        elif away:
            state = "events go to it"
        else:
            return Part(True, "not looked into yet" if waiting is None else "empty", needed=False)
        return Part(trouble is None, state if trouble is None else f"{trouble}: {state}", needed=away)

    return {
        "database": database,
        "serving lock": lambda: Part(core.lock.may_serve(steady_clock()), core.lock.state),
        "recorder": lambda: Part(
            core.recorder.queued < core.settings.events_queued_max, f"{core.recorder.queued} events queued"
        ),
        "spool": spool,
        "catalogue": snapshot,
        "counters": counters,
        "rates": lambda: Part(
            True, (core.rates_fallback and f"prior: {core.rates_fallback}") or core.live.current().rates.name
        ),
        "tasks": lambda: tasks_part(failures()),
    }


def tasks_part(failures: Mapping[str, Failure]) -> Part:
    """One that fails for a moment is named, no more."""
    long = [failure for failure in failures.values() if failure.for_s > LONG_S]
    detail = "; ".join(
        f"{name}: {failure.reason} (for {failure.for_s:.0f} s)" for name, failure in failures.items()
    )
    return Part(not long, detail, needed=any(failure.needed for failure in long))
