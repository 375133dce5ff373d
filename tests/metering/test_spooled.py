"""What came while the ledger was away settles once, when that returns; and nobody waits for it meanwhile."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from journals import MemoryJournal
from msgspec.structs import replace
from world import NOW_MS, PRICE_MICROS, World

from adserve.domain.events import Event, Outcome, Settled
from adserve.domain.ids import EventId
from adserve.domain.money import Money
from adserve.domain.tickets import Ticket
from adserve.domain.time import DAY_MS, HOUR_MS, SECOND_MS
from adserve.limits.counters import MemoryCounters
from adserve.limits.erased import nameless
from adserve.limits.rebuild import Filling
from adserve.limits.rules import campaign_key
from adserve.metering import recorder as recording
from adserve.metering import settle as settling
from adserve.metering.errors import JournalAway, RecorderUnavailable
from adserve.metering.recorder import Recorder
from adserve.metering.spooled import IN_FLIGHT_MS, LOOK_MS, Spooled
from adserve.store.spool import Spool
from adserve.store.spools import EventLog, Spools

LEDGER_S = 0.2
"""While the ledger hangs. Else it may be as slow as the machine is."""
LEASE_MICROS = 1_000_000


class Journal(MemoryJournal):
    """Hangs while it is told to, without a word; else it is the real one."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._real = world.journal
        self.hangs = False
        self.asked = 0

    async def settle(self, events: Sequence[Event]) -> list[Settled]:
        self.asked += 1
        if self.hangs:
            await asyncio.sleep(3_600)
        return await self._real.settle(events)

    async def quarantine(self, event: Event, reason: str) -> EventId:
        return await self._real.quarantine(event, reason)


class Counters(MemoryCounters):
    def __init__(self) -> None:
        super().__init__(1)
        self.doubted: list[Ticket] = []

    async def doubt(self, ticket: Ticket) -> None:
        self.doubted.append(ticket)


class Setting:
    def __init__(self, world: World, spool: Spool) -> None:
        self.world, self.spool = world, spool
        self.journal, self.counters = Journal(world), Counters()
        self.recorder = Recorder(self.journal, spool)
        self.notes = Spools(world.pools.recorder)
        self.spooled = Spooled(spool, self.journal, self.notes, self.recorder, self.counters, most=50)
        self.log = EventLog(world.journal, spool)

    @contextmanager
    def ledger_hangs(self) -> Iterator[None]:
        self.journal.hangs = True
        with pytest.MonkeyPatch.context() as impatient:
            impatient.setattr(recording, "LEDGER_S", LEDGER_S)
            impatient.setattr(settling, "SETTLE_TIMEOUT_S", LEDGER_S)
            yield
        self.journal.hangs = False

    async def outcomes(self, tickets: Sequence[Ticket]) -> list[list[Outcome]]:
        return [[one.outcome for one in await self.log.of_ticket(ticket)] for ticket in tickets]

    async def settle_all(self, now_ms: int = NOW_MS + 1) -> None:
        await self.spooled.step(now_ms)
        while self.spooled.wake.is_set():
            self.spooled.wake.clear()
            await self.spooled.step(now_ms)

    async def captured(self) -> int:
        micros: int = await self.world.fetchval("SELECT sum(captured_micros)::bigint FROM leases")
        return micros


@pytest.fixture
async def setting(world: World, tmp_path: Path) -> AsyncIterator[Setting]:
    async with opened(world, tmp_path) as made:
        yield made


@asynccontextmanager
async def opened(world: World, folder: Path) -> AsyncIterator[Setting]:
    spool = Spool.open(folder / "spool.sqlite", 10_000_000)
    made = Setting(world, spool)
    running = asyncio.create_task(made.recorder.run())
    yield made
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    spool.close()


async def tickets_of(world: World, count: int, **facts: Any) -> list[Ticket]:
    lease = await world.lease(LEASE_MICROS)
    return [world.ticket(lease, **facts) for _ in range(count)]


async def test_one_batch_waits_for_a_ledger_that_hangs_and_later_ones_do_not(
    world: World, setting: Setting
) -> None:
    tickets = await tickets_of(world, 40)
    with setting.ledger_hangs():
        (first,) = await setting.recorder.record([world.event(tickets[0])])
        assert first == Settled(world.event(tickets[0]).event, Outcome.ACCEPTED, None, waits=True)
        for ticket in tickets[1:]:
            await setting.recorder.record([world.event(ticket)])
        assert setting.journal.asked == 1, "who is not asked is not waited for"
        with pytest.raises(RecorderUnavailable):
            await setting.spooled.step(NOW_MS)
        assert setting.recorder.away
        assert await setting.outcomes(tickets) == [[Outcome.ACCEPTED]] * 40

    await setting.settle_all()
    assert not setting.recorder.away
    assert await setting.outcomes(tickets) == [[Outcome.RECORDED]] * 40
    assert await setting.captured() == 40 * PRICE_MICROS
    (fresh,) = await setting.recorder.record([world.event(await one_more(world))])
    assert fresh.billed == Money(PRICE_MICROS, "USD")


class Hopeful(Recorder):
    """A broken twin: every batch asks the ledger again."""

    def _leave(self, error: RecorderUnavailable) -> None:
        pass


async def test_control_without_leaving_every_batch_waits(world: World, setting: Setting) -> None:
    recorder = Hopeful(setting.journal, setting.spool)
    running = asyncio.create_task(recorder.run())
    began_s = asyncio.get_running_loop().time()
    with setting.ledger_hangs():
        for ticket in await tickets_of(world, 4):
            await recorder.record([world.event(ticket)])
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert setting.journal.asked == 4
    assert asyncio.get_running_loop().time() - began_s > 4 * LEDGER_S


async def one_more(world: World) -> Ticket:
    (ticket,) = await tickets_of(world, 1)
    return ticket


async def test_fresh_events_pass_beside_a_spool_that_settles(world: World, setting: Setting) -> None:
    tickets = await tickets_of(world, 200)
    await setting.spool.keep([world.event(ticket) for ticket in tickets])
    await setting.spooled.step(NOW_MS)
    assert setting.spooled.wake.is_set()
    assert (await setting.spool.waiting()).events == 150
    (fresh,) = await setting.recorder.record([world.event(await one_more(world))])
    assert fresh.outcome is Outcome.RECORDED
    assert (await setting.spool.waiting()).events == 150


async def test_what_the_ledger_has_already_is_not_billed_again(world: World, setting: Setting) -> None:
    """The answer to its commit was lost; or the process was killed before it took the row out of the spool."""
    ticket = await one_more(world)
    event, again = world.event(ticket), world.event(ticket, seed=1)
    await world.journal.settle([event])
    await setting.spool.keep([event])
    await setting.settle_all()
    assert (await setting.captured(), setting.counters.doubted) == (PRICE_MICROS, [])
    assert [one.event for one in await setting.log.of_ticket(ticket)] == [event.event]

    earlier = world.event(await one_more(world))
    later = replace(earlier, event=again.event, received_at_ms=earlier.received_at_ms)
    await world.journal.settle([later])
    await setting.spool.keep([replace(earlier, received_at_ms=earlier.received_at_ms - 10_000)])
    await setting.settle_all(NOW_MS + LOOK_MS + 2)
    assert setting.counters.doubted == [earlier.ticket]


async def test_the_counters_are_told_also_by_the_process_after_one_that_was_killed(
    world: World, setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    event = world.event(await one_more(world))
    await world.journal.settle([event])
    await setting.spool.keep([replace(event, received_at_ms=event.received_at_ms - 10_000)])

    async def killed(_: Ticket) -> None:
        raise asyncio.CancelledError

    with monkeypatch.context() as just_then:
        just_then.setattr(setting.counters, "doubt", killed)
        with pytest.raises(asyncio.CancelledError):
            await setting.settle_all()
    await setting.settle_all()
    assert setting.counters.doubted == [event.ticket]


async def test_two_processes_settle_one_spool_once(world: World, setting: Setting, tmp_path: Path) -> None:
    tickets = await tickets_of(world, 120)
    await setting.spool.keep([world.event(ticket) for ticket in tickets])
    async with opened(world, tmp_path) as other:
        other.recorder.away = True  # so that it tries the ledger out of turn
        while (await setting.spool.waiting()).events:
            await asyncio.gather(setting.spooled.step(NOW_MS), other.spooled.step(NOW_MS))
        assert not other.recorder.away
    assert await setting.captured() == 120 * PRICE_MICROS
    assert await world.fetchval("SELECT count(*) FROM events") == 120


async def test_bad_rows_go_into_quarantine_and_hold_nobody_up(world: World, setting: Setting) -> None:
    tickets = await tickets_of(world, 3)
    (bad,) = await tickets_of(world, 1, surface="a\0b")
    await setting.spool.keep([world.event(ticket) for ticket in (*tickets, bad)])
    setting.spool._connection.execute("UPDATE spooled SET event = x'00' WHERE number = 2")
    await setting.settle_all()
    assert (await setting.spool.waiting()).events == 0
    assert await setting.outcomes([*tickets, bad]) == [
        [Outcome.RECORDED], [Outcome.ACCEPTED], [Outcome.RECORDED], [Outcome.ACCEPTED],
    ]  # fmt: skip  # laid out as rows
    assert await world.fetchval("SELECT count(*) FROM quarantined_events") == 2
    assert setting.counters.doubted == [bad], (
        "it may be sent again in good form, and be stored with a later moment"
    )


async def test_a_row_that_is_refused_for_ever_holds_up_no_other(world: World, setting: Setting) -> None:
    tickets = await tickets_of(world, 6)
    await setting.spool.keep([world.event(ticket) for ticket in tickets])
    settle = setting.journal._real.settle

    class Refusing:
        async def settle(self, events: Sequence[Event]) -> list[Settled]:
            if any(event.ticket == tickets[0] for event in events):
                raise JournalAway("it alone")
            return await settle(events)

    setting.journal._real = Refusing()
    for _ in range(30):
        try:
            await setting.spooled.step(NOW_MS + 1)
        except RecorderUnavailable:
            continue
    assert (await setting.outcomes(tickets)).count([Outcome.RECORDED]) == 5
    assert (await setting.spool.waiting()).events == 1


async def test_captures_of_spooled_events_stay_within_their_lease(world: World, setting: Setting) -> None:
    lease = await world.lease(3 * PRICE_MICROS)
    tickets = [world.ticket(lease) for _ in range(10)]
    await setting.spool.keep([world.event(ticket) for ticket in tickets])
    await setting.settle_all()
    outcomes = [outcome for (outcome,) in await setting.outcomes(tickets)]
    assert (outcomes.count(Outcome.RECORDED), outcomes.count(Outcome.OVER_BUDGET)) == (3, 7)
    assert await setting.captured() == 3 * PRICE_MICROS


async def closes(world: World, lease: int, at_ms: int) -> bool:
    await world.ledger.close_due(at_ms)
    closed: bool = await world.fetchval("SELECT closed_at IS NOT NULL FROM leases WHERE id = $1", lease)
    return closed


async def test_a_lease_stays_open_until_every_spool_is_settled_up_to_it(
    world: World, setting: Setting
) -> None:
    due_ms = NOW_MS + HOUR_MS
    ticket = await one_more(world)
    await setting.settle_all(NOW_MS)
    event = replace(world.event(ticket), received_at_ms=due_ms - 30 * SECOND_MS)
    await setting.spool.keep([event])
    await world.ledger.freeze({ticket.lease: due_ms}, NOW_MS)
    assert not await closes(world, ticket.lease, due_ms + 5 * HOUR_MS)  # this machine was away
    with setting.ledger_hangs(), pytest.raises(RecorderUnavailable):
        await setting.spooled.step(due_ms + 5 * HOUR_MS)
    assert not await closes(world, ticket.lease, due_ms + 5 * HOUR_MS)
    await setting.settle_all(due_ms + 5 * HOUR_MS)
    assert await setting.captured() == PRICE_MICROS
    assert await closes(world, ticket.lease, due_ms + 5 * HOUR_MS)


async def test_a_lease_waits_also_for_what_one_batch_leaves_in_the_spool(
    world: World, setting: Setting
) -> None:
    due_ms, now_ms = NOW_MS + HOUR_MS, NOW_MS + 6 * HOUR_MS
    tickets = [*await tickets_of(world, 59), await one_more(world)]
    await setting.spool.keep([world.event(ticket) for ticket in tickets])
    await world.ledger.freeze({tickets[-1].lease: due_ms}, NOW_MS)
    await setting.spooled.step(now_ms)
    assert (await setting.spool.waiting()).events == 10
    assert not await closes(world, tickets[-1].lease, now_ms)
    await setting.settle_all(now_ms)
    assert await setting.captured() == 60 * PRICE_MICROS
    assert await closes(world, tickets[-1].lease, now_ms)


async def test_a_spool_that_is_gone_holds_a_lease_for_a_day(world: World, setting: Setting) -> None:
    ticket = await one_more(world)
    await setting.settle_all(NOW_MS)
    await world.ledger.freeze({ticket.lease: NOW_MS + HOUR_MS}, NOW_MS)
    assert not await closes(world, ticket.lease, NOW_MS + HOUR_MS + DAY_MS)
    assert await closes(world, ticket.lease, NOW_MS + HOUR_MS + DAY_MS + 1)


async def test_an_outage_of_more_than_a_day_costs_no_charge(world: World, setting: Setting) -> None:
    """The first that is heard of the spool again is that it has not settled yet."""
    ticket = await one_more(world)
    await world.ledger.freeze({ticket.lease: NOW_MS + HOUR_MS}, NOW_MS)
    await setting.spool.keep([world.event(ticket)])
    back_ms = NOW_MS + 30 * HOUR_MS
    await setting.notes.note(setting.spool.id, NOW_MS, back_ms)
    assert not await closes(world, ticket.lease, back_ms)
    await setting.settle_all(back_ms)
    assert await setting.captured() == PRICE_MICROS
    assert await closes(world, ticket.lease, back_ms)


async def test_one_that_left_with_an_empty_spool_holds_nothing(world: World, setting: Setting) -> None:
    ticket = await one_more(world)
    await setting.settle_all(NOW_MS)
    await world.ledger.freeze({ticket.lease: NOW_MS + HOUR_MS}, NOW_MS)
    assert not await closes(world, ticket.lease, NOW_MS + HOUR_MS + IN_FLIGHT_MS)
    await setting.spooled.leave()
    assert await closes(world, ticket.lease, NOW_MS + HOUR_MS + IN_FLIGHT_MS)


class NoCheckpoint:
    async def taken_at_ms(self) -> int | None:
        return None

    def parts(self) -> AsyncIterator[bytes]:
        raise NotImplementedError


async def started(log: Any, make: type[MemoryCounters] = MemoryCounters) -> MemoryCounters:
    """The counters of a new start."""
    counters = make(2, filled=False)
    await Filling(counters, NoCheckpoint(), log).step(NOW_MS + HOUR_MS)
    return counters


async def seen(world: World, counters: MemoryCounters, window_ms: int = 2 * HOUR_MS) -> int:
    """How many impressions of late the counters know of an hour later."""
    keys = [(campaign_key(world.campaign), window_ms)]
    return (await counters.usage(b"c" * 16, keys, NOW_MS + HOUR_MS))[0]


async def test_counters_that_are_filled_know_what_is_spooled(world: World, setting: Setting) -> None:
    tickets = await tickets_of(world, 5)
    await world.journal.settle([world.event(ticket) for ticket in tickets[:2]])
    await setting.spool.keep([world.event(ticket) for ticket in tickets[1:]])
    await setting.spool.keep([world.event(await one_more(world), outcome=Outcome.OVER_CAP)])
    await setting.spool.keep([world.event(nameless(await one_more(world)))])
    assert await seen(world, await started(setting.log)) == 5


class Sure(MemoryCounters):
    """A broken twin: takes the moment that the spool has for the one that will be stored."""

    def restore(self, *restored: Any) -> None:
        super().restore(*restored[:6])


@pytest.mark.parametrize(("make", "counted"), [(MemoryCounters, 1), (Sure, 0)], ids=["", "control"])
@pytest.mark.parametrize("came_again", ["before the start", "after it"])
async def test_what_is_spooled_and_came_again_may_be_stored_with_the_later_moment(
    world: World, setting: Setting, make: type[MemoryCounters], counted: int, came_again: str
) -> None:
    """The second goes straight into the ledger, and the first is a duplicate when it leaves the spool."""
    event = world.event(await one_more(world))
    again = replace(world.event(event.ticket, seed=1), received_at_ms=NOW_MS + HOUR_MS // 2)
    await setting.spool.keep([event])
    if came_again == "before the start":
        await world.journal.settle([again])
    counters = await started(setting.log, make)
    if came_again == "after it":
        assert await counters.confirm(event.ticket, again.received_at_ms, again.received_at_ms)
        await world.journal.settle([again])
    assert await seen(world, counters, window_ms=HOUR_MS - 2 * SECOND_MS) == counted


async def test_control_the_ledger_alone_knows_less(world: World, setting: Setting) -> None:
    tickets = await tickets_of(world, 5)
    await world.journal.settle([world.event(ticket) for ticket in tickets[:2]])
    await setting.spool.keep([world.event(ticket) for ticket in tickets[1:]])
    assert await seen(world, await started(world.journal)) == 2
