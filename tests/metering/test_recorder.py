import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import msgspec
import pytest
from journals import MemoryJournal
from test_tickets import make_ticket

from adserve.domain.events import Event, EventKind, Outcome, Settled
from adserve.domain.ids import EventId, uuid7
from adserve.metering import recorder as recording
from adserve.metering import settle as settling
from adserve.metering.errors import (
    JournalAway,
    JournalContended,
    JournalRejected,
    RecorderFull,
    RecorderUnavailable,
)
from adserve.metering.recorder import Recorder

pytestmark = pytest.mark.virtual_time


def make_events(count: int, first: int = 0) -> list[Event]:
    tickets = [make_ticket(chance=1_000 + first + nth) for nth in range(count)]
    return [
        Event(
            EventId(uuid7(1, nth)),
            EventKind.IMPRESSION,
            ticket,
            Outcome.RECORDED,
            ticket.issued_at_ms,
            None,
            None,
        )
        for nth, ticket in enumerate(tickets)
    ]


@asynccontextmanager
async def running(journal: MemoryJournal, **limits: int) -> AsyncIterator[Recorder]:
    recorder = Recorder(journal, **limits)
    task = asyncio.create_task(recorder.run())
    yield recorder
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_call_is_answered_in_order_after_everything_is_stored() -> None:
    journal = MemoryJournal()
    async with running(journal, batch_rows_max=10) as recorder:
        events = make_events(35)
        settled = await recorder.record(events)
        assert [one.event for one in settled] == [event.event for event in events]
        assert len(journal.stored) == 35
        assert max(journal.batches) <= 10


async def test_callers_share_batches() -> None:
    journal = MemoryJournal()
    journal.takes_s = 0.01
    async with running(journal, writers=2) as recorder:
        await asyncio.gather(*(recorder.record([event]) for event in make_events(300)))
    assert len(journal.stored) == 300
    assert len(journal.batches) < 15


async def test_a_lone_event_does_not_wait_for_company() -> None:
    journal = MemoryJournal()
    async with running(journal) as recorder:
        started = asyncio.get_running_loop().time()
        for event in make_events(100):
            await recorder.record([event])
        assert asyncio.get_running_loop().time() - started < 0.25  # lingering would take 0.5 s


async def test_a_full_queue_refuses_and_takes_again_when_it_has_emptied() -> None:
    journal = MemoryJournal()
    async with running(journal, events_queued_max=50) as recorder:
        with pytest.raises(RecorderFull):
            await recorder.record(make_events(51))
        assert len(await recorder.record(make_events(50))) == 50
        assert recorder.queued == 0


async def test_a_failing_batch_fails_its_callers_and_no_others() -> None:
    journal = MemoryJournal()
    bad, good = make_events(2)

    def away(events: Sequence[Event]) -> None:
        if bad in events:
            raise JournalAway("gone")

    journal.trouble = away
    async with running(journal, batch_rows_max=1) as recorder:
        answers = await asyncio.gather(
            recorder.record([bad]),
            recorder.record([good]),
            recorder.record([good, bad]),
            return_exceptions=True,
        )
    assert isinstance(answers[0], RecorderUnavailable)
    assert [one.outcome for one in answers[1]] == [Outcome.RECORDED]
    assert isinstance(answers[2], RecorderUnavailable)


async def test_no_caller_waits_for_more_than_one_hanging_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "ANSWER_S", 0.05)
    journal = MemoryJournal()
    journal.takes_s = 0.04
    async with running(journal, writers=1, batch_rows_max=1) as recorder:
        first, second = make_events(2)
        answers = asyncio.gather(recorder.record([first]), recorder.record([second]), return_exceptions=True)
        assert [type(answer) for answer in await answers] == [list, RecorderUnavailable]
        await recorder.drain()
    assert len(journal.stored) == 2


async def test_a_caller_that_leaves_does_not_take_its_events_back() -> None:
    journal = MemoryJournal()
    journal.takes_s = 0.02
    async with running(journal) as recorder:
        leaving = asyncio.create_task(recorder.record(make_events(3)))
        await asyncio.sleep(0.01)
        leaving.cancel()
        await recorder.drain()
    assert len(journal.stored) == 3


async def test_draining_answers_all_that_was_taken_and_refuses_the_rest() -> None:
    journal = MemoryJournal()
    journal.takes_s = 0.01
    async with running(journal, batch_rows_max=5) as recorder:
        taken = asyncio.create_task(recorder.record(make_events(40)))
        await asyncio.sleep(0)
        await recorder.drain()
        assert len(await taken) == 40
        with pytest.raises(RecorderUnavailable):
            await recorder.record(make_events(1))


async def test_a_recorder_that_is_stopped_fails_what_it_was_writing() -> None:
    journal = MemoryJournal()
    journal.takes_s = 60
    async with running(journal) as recorder:
        waiting = asyncio.create_task(recorder.record(make_events(1)))
        await asyncio.sleep(0.01)
    with pytest.raises(RecorderUnavailable):
        await waiting


async def test_contention_is_retried_and_gives_up_in_the_end() -> None:
    journal, losses = MemoryJournal(), [0]

    def lose(events: Sequence[Event]) -> None:
        losses[0] += 1
        if losses[0] < settling.ATTEMPTS_MAX:
            raise JournalContended("deadlock")

    journal.trouble = lose
    assert len(await settling.settle(journal, make_events(3))) == 3
    losses[0] = -1_000
    with pytest.raises(RecorderUnavailable):
        await settling.settle(journal, make_events(3))


@pytest.mark.parametrize("bad", [{0}, {199}, {3, 77, 78, 150}])
async def test_bad_events_end_alone_in_quarantine_and_the_rest_is_settled(bad: set[int]) -> None:
    journal, events = MemoryJournal(), make_events(200)
    poison = {events[nth].event for nth in bad}

    def reject(batch: Sequence[Event]) -> None:
        if any(event.event in poison for event in batch):
            raise JournalRejected("out of range")

    journal.trouble = reject
    settled = await settling.settle(journal, events)
    assert {event.event for event in journal.quarantined} == poison
    assert [one.event for one in settled] == [event.event for event in events]
    assert {nth for nth, one in enumerate(settled) if one.outcome is Outcome.ACCEPTED} == bad
    assert all(one.billed is None for one in settled if one.outcome is Outcome.ACCEPTED)


async def test_a_journal_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settling, "SETTLE_TIMEOUT_S", 0.02)
    journal = MemoryJournal()
    journal.takes_s = 60
    with pytest.raises(RecorderUnavailable, match="too long"):
        await settling.settle(journal, make_events(1))


async def test_no_two_batches_that_are_being_stored_charge_one_lease() -> None:
    """In the ledger the second would wait for the first, and all that is in it as well."""
    journal = OverlapJournal()
    journal.takes_s = 0.005
    events = [event for lease in range(5) for event in charging(lease, 12, first=100 * lease)]
    random.Random(1).shuffle(events)
    async with running(journal, batch_rows_max=7) as recorder:
        settled = await asyncio.gather(*(recorder.record([event]) for event in events))
    assert [one.event for (one,) in settled] == [event.event for event in events]
    assert journal.together > 1, "others are stored meanwhile"
    assert journal.shared == 0


async def test_what_waits_for_a_hot_lease_is_stored_together() -> None:
    journal = MemoryJournal()
    journal.takes_s = 0.005
    hot, others = charging(1, 300), charging(2, 60, first=300)
    async with running(journal) as recorder:

        async def report(events: list[Event]) -> None:
            for event in events:
                await recorder.record([event])

        await asyncio.gather(*(report([*hot[nth::60], others[nth]]) for nth in range(60)))
    assert len(journal.stored) == 360
    assert len(journal.batches) < 20


async def test_control_batches_of_a_lease_meet_when_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "_charged", lambda event: None)
    journal = OverlapJournal()
    journal.takes_s = 0.005
    async with running(journal, batch_rows_max=7) as recorder:
        await asyncio.gather(*(recorder.record([event]) for event in charging(1, 60)))
    assert journal.shared > 0


def charging(lease: int, count: int, first: int = 0) -> list[Event]:
    return [
        msgspec.structs.replace(event, ticket=msgspec.structs.replace(event.ticket, lease=lease))
        for event in make_events(count, first)
    ]


class OverlapJournal(MemoryJournal):
    """`together` is the most batches at once, `shared` how often two of them charged one lease."""

    def __init__(self) -> None:
        super().__init__()
        self.together = self.shared = 0
        self._inside: list[set[int]] = []

    async def settle(self, events: Sequence[Event]) -> list[Settled]:
        leases = {event.ticket.lease for event in events}
        self.shared += sum(not leases.isdisjoint(others) for others in self._inside)
        self._inside.append(leases)
        self.together = max(self.together, len(self._inside))
        try:
            return await super().settle(events)
        finally:
            self._inside.remove(leases)
