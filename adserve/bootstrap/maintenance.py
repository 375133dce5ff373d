"""What is done with the books while nobody waits: roll-ups are compacted, everything is derived again at night, days that are over
are indexed, old ones closed and retired."""

import logging

from prometheus_client import Gauge

from adserve.accounting.reconciliation import night_of
from adserve.background import Task
from adserve.bootstrap.core import Core
from adserve.bootstrap.privacy import CLOSED_MS, INDEX_S
from adserve.database import partitions
from adserve.domain.time import DAY_MS, HOUR_MS, SECOND_MS, day_of, from_ms
from adserve.store.books import Nights
from adserve.store.closing import Closing
from adserve.store.ledger import Ledger
from adserve.store.rollups import Rollups

log = logging.getLogger(__name__)

COMPACTED_S = 20.0
RECONCILED_S = 300.0
RETIRED_S = 3_600.0
CLOSED_DAYS_S = 60.0
KNOWN_AFTER_MS = HOUR_MS
"""After so long every process knows that a day is closed, and its partition may go."""
DIFFERENCES_LOGGED_MAX = 20
OVERDUE_S = 60.0
OVERDUE_MS = HOUR_MS
"""A lease closes seconds after it is due, unless events of before wait somewhere."""
BY_ADVERTISER = ("advertiser_id", "received_at", "event_id")
"""As the log is read by a tenant; of others' events it is nearly all."""

DIFFERENCES = Gauge(
    "adserve_reconciliation_differences",
    "Figures that differed in the newest nightly reconciliation.",
    multiprocess_mode="livemax",
)
RECONCILED_AT = Gauge(
    "adserve_reconciliation_timestamp_seconds",
    "When the newest nightly reconciliation began.",
    multiprocess_mode="livemax",
)

OVERDUE = Gauge(
    "adserve_leases_overdue",
    "Leases that should have closed an hour ago: their budget is kept for events that may wait in a spool.",
    multiprocess_mode="livemax",
)


class Maintenance:
    """No start waits for these; in every process, of which one works."""

    def __init__(self, core: Core) -> None:
        self._settings, self._clock = core.settings, core.clock
        self._journal = core.events.journal
        self._rollups = Rollups(core.pools.recorder)
        self._nights = Nights(core.pools.analyst, core.pools.recorder)
        self._ledger = Ledger(core.pools.recorder)
        self._owner = core.pools.owner
        self._waits_for: str | None = None

    def tasks(self) -> tuple[Task, ...]:
        return (
            Task("roll-ups", self.compact, COMPACTED_S),
            Task("nightly reconciliation", self.reconcile, RECONCILED_S),
            Task("closed days", self.learn_closed_days, CLOSED_DAYS_S),
            Task("overdue leases", self.look_for_overdue, OVERDUE_S),
            Task("log's index", self.index, INDEX_S),
            Task("old events", self.retire, RETIRED_S),
        )

    async def compact(self, _now_ms: int) -> None:
        await self._rollups.compact()

    async def reconcile(self, now_ms: int) -> None:
        due_ms = night_of(now_ms, self._settings.reconcile_hour)
        night = await self._nights.newest()
        if night is None or night.started_at_ms < due_ms:
            await self._nights.run(due_ms, self._clock)
            night = await self._nights.newest()
            if night is not None and not night.result.exact:
                log.error(
                    "the books do not add up",
                    extra={
                        "differing": night.result.differing,
                        "differences": [
                            str(each) for each in night.result.differences[:DIFFERENCES_LOGGED_MAX]
                        ],
                    },
                )
        if night is not None:
            DIFFERENCES.set(night.result.differing)
            RECONCILED_AT.set(night.started_at_ms / SECOND_MS)

    async def learn_closed_days(self, _now_ms: int) -> None:
        await self._journal.learn_closed_days()

    async def look_for_overdue(self, now_ms: int) -> None:
        OVERDUE.set(await self._ledger.overdue(now_ms - OVERDUE_MS))

    async def index(self, now_ms: int) -> None:
        """So that a small advertiser's events of a day are found without a look at all of them."""
        async with self._owner.acquire() as connection:
            await partitions.index_closed(connection, "events", BY_ADVERTISER, day_of(now_ms - CLOSED_MS))

    async def retire(self, now_ms: int) -> None:
        settings = self._settings
        first_kept = day_of(now_ms - settings.events_kept_days * DAY_MS)
        async with self._owner.acquire() as connection:
            closing = Closing(connection)
            if not await closing.take_turn():
                return
            waits_for = await closing.close_before(first_kept, from_ms(now_ms))
            if waits_for != self._waits_for and waits_for is not None:
                log.warning("an old day stays open", extra={"waits_for": waits_for})
            self._waits_for = waits_for
            await closing.detach(from_ms(now_ms - KNOWN_AFTER_MS))
            match settings.retired_events:
                case "export":
                    await closing.export_detached(settings.data_home / "retired")
                case "drop":
                    await closing.drop_detached()
                case "keep":
                    pass
