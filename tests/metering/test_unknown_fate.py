"""An event may be stored although its caller was told to send it again. Caps and hides hold all the same."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest
from journals import MemoryJournal
from msgspec import structs
from test_tickets import KEY, make_ticket
from world import NOW_MS

from adserve.domain.events import Event, EventKind, Outcome, Settled
from adserve.domain.ids import uuid7
from adserve.domain.tickets import Ticket
from adserve.domain.time import SECOND_MS
from adserve.limits.counters import MemoryCounters
from adserve.limits.hides import Hides
from adserve.limits.leases import LeaseBook
from adserve.limits.reservations import Candidate, Reservation
from adserve.limits.rules import Rule, campaign_key, hide_key, keys_counted
from adserve.metering.errors import JournalAway, RecorderUnavailable
from adserve.metering.intake import Intake, Report
from adserve.metering.origins import Origins
from adserve.metering.pseudonyms import Pseudonyms
from adserve.metering.recorder import Recorder
from adserve.metering.tickets import Sealer
from adserve.metering.traffic import Traffic

WINDOW_MS = 60 * SECOND_MS
TICKET_TTL_MS = 300 * SECOND_MS
SEALER = Sealer([KEY])
NO_CHANCE = random.Random(0)


class FlakyJournal(MemoryJournal):
    """Breaks off half of its answers, after it has stored the events or before."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self._chance = chance

    async def settle(self, events: Sequence[Event]) -> list[Settled]:
        if self._chance.random() < 0.25:
            raise JournalAway("before it was stored")
        settled = await super().settle(events)
        if self._chance.random() < 0.25:
            raise JournalAway("after it was stored")
        return settled


class UnansweringJournal(MemoryJournal):
    """Breaks off its first answer, after it has stored the events."""

    async def settle(self, events: Sequence[Event]) -> list[Settled]:
        first = not self.stored
        settled = await super().settle(events)
        if first:
            raise JournalAway("after it was stored")
        return settled


class Oblivious(MemoryCounters):
    """A broken twin: what was confirmed once stays where it was."""

    async def doubt(self, ticket: Ticket) -> None:
        pass


class Viewer:
    """Asks for an ad that may be seen once in a minute, and reports it until that is acknowledged."""

    def __init__(
        self, counters: MemoryCounters, journal: MemoryJournal, chance: random.Random = NO_CHANCE
    ) -> None:
        self._chance = chance
        self.journal = journal
        self.recorder = Recorder(journal)
        self._counters = counters
        self._intake = Intake(
            SEALER,
            counters,
            LeaseBook(),
            self.recorder,
            lambda: self._chance.getrandbits(128),
            hides=Hides(),
            may_serve=lambda: True,
            traffic=Traffic(Origins(Pseudonyms())),
        )
        self._to_report: list[Ticket] = []
        self._now_ms = NOW_MS

    async def live(self, steps: int) -> None:
        for _ in range(steps):
            self._now_ms += self._chance.randrange(1, 40 * SECOND_MS)
            await self._ask()
            for ticket in list(self._to_report):
                if self._chance.random() < 0.5 and await self.report(ticket, EventKind.IMPRESSION):
                    self._to_report.remove(ticket)

    async def report(self, ticket: Ticket, kind: EventKind, at_ms: int | None = None) -> bool:
        try:
            await self._intake.take([Report(SEALER.seal(ticket), kind)], at_ms or self._now_ms)
        except RecorderUnavailable:
            return False
        return True

    async def _ask(self) -> None:
        facts = make_ticket()
        cap = Rule(campaign_key(facts.campaign), 1, WINDOW_MS)
        keys = keys_counted(facts.ad, facts.campaign, facts.advertiser, facts.labels)
        id_, expires_at_ms = uuid7(self._now_ms, self._chance.getrandbits(74)), self._now_ms + TICKET_TTL_MS
        asked = Reservation(id_, [Candidate(facts.advertiser, 1, keys, (cap,))], [id_], expires_at_ms)
        if (await self._counters.reserve(facts.viewer_cap, asked, self._now_ms)).reserved:
            ticket = structs.replace(
                make_ticket(self._now_ms),
                ticket=id_,
                expires_at_ms=expires_at_ms,
                rules=((cap.key, cap.most, cap.window_ms),),
            )
            self._to_report.append(ticket)


async def most_in_a_window(make_counters: Callable[[int], MemoryCounters]) -> int:
    """Of the impressions that are stored and count, over many viewers."""
    most = 0
    for seed in range(60):
        chance = random.Random(seed)
        async with recording(Viewer(make_counters(1), FlakyJournal(chance), chance)) as viewer:
            await viewer.live(60)
        stored = viewer.journal.stored.values()
        uncounted = {Outcome.LATE, Outcome.OVER_CAP}
        moments = [event.received_at_ms for event in stored if event.outcome not in uncounted]
        assert len(moments) > 5
        windows = (sum(at <= other < at + WINDOW_MS for other in moments) for at in moments)
        most = max(most, *windows)
    return most


async def test_caps_hold_for_events_that_had_to_be_sent_again() -> None:
    assert await most_in_a_window(MemoryCounters) == 1


async def test_control_counters_that_never_doubt_break_the_cap() -> None:
    assert await most_in_a_window(Oblivious) > 1


async def test_while_the_counters_are_filled_an_impression_may_be_overtaken_by_a_later_report_of_it() -> None:
    """They are told to doubt what they have not confirmed."""
    ticket = make_ticket()
    async with recording(Viewer(MemoryCounters(1, filled=False), MemoryJournal())) as viewer:
        for at_ms in (NOW_MS + 2, NOW_MS + 1):
            assert await viewer.report(ticket, EventKind.IMPRESSION, at_ms)
    assert [event.outcome for event in viewer.journal.stored.values()] == [Outcome.ACCEPTED]


@pytest.mark.parametrize("kind", [EventKind.HIDE, EventKind.REPORT])
async def test_a_hide_that_was_stored_without_an_answer_hides_when_it_comes_again(kind: EventKind) -> None:
    counters, ticket = MemoryCounters(1), make_ticket()
    async with recording(Viewer(counters, UnansweringJournal())) as viewer:
        assert not await viewer.report(ticket, kind)
        assert len(viewer.journal.stored) == 1
        assert await viewer.report(ticket, kind)
    hides = [(hide_key(ticket.advertiser), WINDOW_MS)]
    assert await counters.usage(ticket.viewer_cap, hides, NOW_MS) == [1]


@asynccontextmanager
async def recording(viewer: Viewer) -> AsyncIterator[Viewer]:
    running = asyncio.create_task(viewer.recorder.run())
    yield viewer
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
