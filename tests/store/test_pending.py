"""Impressions that came while the counters were away: durable at once, billed once, whenever that is."""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

import asyncpg
import pytest
from msgspec.structs import replace
from waiting import PATIENCE_S
from world import NOW_MS, PRICE_MICROS, World

from adserve.domain.events import Event, EventKind, Outcome, Settled
from adserve.domain.money import Money
from adserve.domain.tickets import Ticket
from adserve.domain.time import HOUR_MS
from adserve.limits.counters import CountersAway
from adserve.metering import pending
from adserve.metering.errors import JournalContended
from adserve.metering.pending import Judge, Pending
from adserve.store.journal import SQL, Journal, Kept

BILLED = Money(PRICE_MICROS, "USD")


class Counters:
    """Lets through what is not named; away until told otherwise."""

    epoch = 0

    def __init__(self) -> None:
        self.away = False
        self.refused: set[Ticket] = set()
        self.asked: list[tuple[Ticket, int]] = []
        self.doubted: list[Ticket] = []

    async def confirm(self, ticket: Ticket, at_ms: int, now_ms: int) -> bool:
        if self.away:
            raise CountersAway("away")
        self.asked.append((ticket, at_ms))
        return ticket not in self.refused

    async def doubt(self, ticket: Ticket) -> None:
        self.doubted.append(ticket)

    async def hide(self, ticket: Ticket, at_ms: int) -> None: ...


class Setting:
    def __init__(self, world: World) -> None:
        self.counters = Counters()
        self.pending = Pending(world.journal, self.counters)


@pytest.fixture
def setting(world: World) -> Setting:
    return Setting(world)


def accepted(world: World, ticket: Ticket, kind: str = "impression", seed: int = 0) -> Event:
    return world.event(ticket, kind, Outcome.ACCEPTED, seed)


async def test_it_is_kept_once_and_billed_once_the_counters_return(world: World, setting: Setting) -> None:
    ticket = world.ticket(await world.lease(10_000))
    event, again = accepted(world, ticket), accepted(world, ticket, seed=1)
    assert await world.journal.settle([event]) == [Settled(event.event, Outcome.ACCEPTED, None)]
    assert await world.journal.settle([again]) == [Settled(event.event, Outcome.DUPLICATE, None)]
    assert await world.journal.of_ticket(ticket) == [
        Kept(event.event, EventKind.IMPRESSION, Outcome.ACCEPTED, None)
    ]
    setting.counters.away = True
    await setting.pending.step(NOW_MS)
    assert setting.pending.waiting == 1
    setting.counters.away = False
    await setting.pending.step(NOW_MS + HOUR_MS)
    assert setting.counters.asked == [(ticket, event.received_at_ms)]
    assert await world.journal.of_ticket(ticket) == [
        Kept(event.event, EventKind.IMPRESSION, Outcome.RECORDED, BILLED)
    ]
    assert await world.fetchval("SELECT captured_micros FROM leases") == PRICE_MICROS
    assert setting.pending.waiting == 0


async def test_one_call_may_hold_both_kinds(world: World) -> None:
    lease = await world.lease(10_000)
    one, two, three = (world.ticket(lease) for _ in range(3))
    events = [accepted(world, one), world.event(two), accepted(world, three), accepted(world, one, seed=1)]
    outcomes = [settled.outcome for settled in await world.journal.settle(events)]
    assert outcomes == [Outcome.ACCEPTED, Outcome.RECORDED, Outcome.ACCEPTED, Outcome.DUPLICATE]


async def test_the_same_event_is_a_duplicate_whichever_way_it_comes_first(
    world: World, setting: Setting
) -> None:
    lease = await world.lease(10_000)
    ticket, other = world.ticket(lease), world.ticket(lease)
    waiting, settled = accepted(world, ticket), world.event(other)
    await world.journal.settle([waiting, settled])
    assert await world.journal.settle([world.event(ticket, seed=1)]) == [
        Settled(waiting.event, Outcome.DUPLICATE, None, waits=True)
    ]
    assert await world.journal.settle([accepted(world, other, seed=1)]) == [
        Settled(settled.event, Outcome.DUPLICATE, None)
    ]
    await setting.pending.step(NOW_MS)
    assert await world.fetchval("SELECT sum(captured_micros)::int FROM leases") == 2 * PRICE_MICROS
    assert await world.fetchval("SELECT count(*) FROM events") == 2


async def test_what_does_not_count_is_over_cap_and_of_two_events_the_first_decides(
    world: World, setting: Setting
) -> None:
    lease = await world.lease(10_000)
    over, under = world.ticket(lease), world.ticket(lease)
    setting.counters.refused.add(over)
    await world.journal.settle(
        [accepted(world, ticket, kind) for ticket in (over, under) for kind in ("impression", "view")]
    )
    await setting.pending.step(NOW_MS)
    outcomes = [[one.outcome for one in await world.journal.of_ticket(ticket)] for ticket in (over, under)]
    assert outcomes[0] == [Outcome.OVER_CAP, Outcome.OVER_CAP]
    assert sorted(outcomes[1]) == [Outcome.RECORDED, Outcome.UNBILLED_KIND]


async def test_a_lease_stays_open_for_what_is_still_to_be_charged(world: World, setting: Setting) -> None:
    campaign = await world.add_campaign(world.advertiser, daily=10_000)
    lease = await world.lease(10_000, campaign)
    ticket = world.ticket(lease, campaign=campaign)
    await world.journal.settle([accepted(world, ticket)])
    await world.ledger.freeze({lease: NOW_MS + HOUR_MS}, NOW_MS)
    await world.ledger.close_due(NOW_MS + 9 * HOUR_MS)
    await setting.pending.step(NOW_MS + 9 * HOUR_MS)
    assert (await world.journal.of_ticket(ticket))[0].billed == BILLED
    await world.ledger.close_due(NOW_MS + 9 * HOUR_MS)
    assert await world.fetchval("SELECT closed_at IS NOT NULL FROM leases WHERE id = $1", lease)


async def test_a_crash_while_settling_loses_nothing_and_bills_once(world: World, setting: Setting) -> None:
    ticket = world.ticket(await world.lease(10_000))
    await world.journal.settle([accepted(world, ticket)])

    async def dies(events: Sequence[Event]) -> list[Event]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await world.journal.settle_pending(dies, 10)
    assert (await world.journal.of_ticket(ticket))[0].outcome is Outcome.ACCEPTED
    await setting.pending.step(NOW_MS)
    assert await world.fetchval("SELECT captured_micros FROM leases") == PRICE_MICROS


async def test_it_is_not_said_to_be_a_duplicate_of_what_was_put_aside_meanwhile(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticket = world.ticket(await world.lease(10_000))
    first, again = accepted(world, ticket), accepted(world, ticket, seed=1)
    await world.journal.settle([first])
    fetch = asyncpg.Connection.fetch

    async def late(connection: asyncpg.Connection, query: str, *values: Any) -> Any:
        if query == SQL.first_of:
            await world.journal.quarantine_pending(first, "bad")
        return await fetch(connection, query, *values)

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(asyncpg.Connection, "fetch", late)
        with pytest.raises(JournalContended):
            await world.journal.settle([again])
    assert await world.journal.settle([again]) == [Settled(again.event, Outcome.ACCEPTED, None)]


async def test_two_processes_take_turns(world: World, setting: Setting) -> None:
    lease = await world.lease(1_000_000)
    tickets = [world.ticket(lease) for _ in range(50)]
    await world.journal.settle([accepted(world, ticket) for ticket in tickets])
    others = Setting(world)
    await asyncio.gather(setting.pending.step(NOW_MS), others.pending.step(NOW_MS))
    assert len(setting.counters.asked) + len(others.counters.asked) == 50
    assert await world.fetchval("SELECT captured_micros FROM leases") == 50 * PRICE_MICROS


class Overtaken(Journal):
    """Another process is quicker at putting aside what both found to be bad."""

    async def quarantine_pending(self, event: Event, reason: str) -> None:
        await super().quarantine_pending(event, reason)
        await super().quarantine_pending(event, reason)


@pytest.mark.parametrize("make", [Journal, Overtaken])
async def test_what_cannot_be_stored_is_put_aside_and_holds_nobody_up(
    world: World, setting: Setting, make: type[Journal]
) -> None:
    """It may be sent again in good form, and be stored with a later moment than it was confirmed with."""
    lease = await world.lease(10_000)
    bad, good = world.ticket(lease, surface="a\0b"), world.ticket(lease)
    await world.journal.settle([accepted(world, ticket) for ticket in (bad, good)])
    pending = Pending(make(world.pools.recorder), setting.counters)
    await pending.step(NOW_MS)
    assert (await world.journal.of_ticket(good))[0].outcome is Outcome.RECORDED
    assert await world.fetchval("SELECT count(*) FROM quarantined_events") == 1
    assert pending.waiting == 0
    assert setting.counters.doubted == [bad]


class Watched(Journal):
    """Knows how many events each turn was to take, and loses the first turn to a deadlock where it is told to."""

    def __init__(self, pool: asyncpg.Pool, *, loses: bool = False) -> None:
        super().__init__(pool)
        self.turns: list[int] = []
        self._loses = loses

    async def settle_pending(self, judge: Judge, most: int) -> list[tuple[Event, Settled]] | None:
        self.turns.append(most)
        if self._loses and len(self.turns) == 1:
            raise JournalContended("deadlock detected")
        return await super().settle_pending(judge, most)


async def test_a_turn_that_loses_to_another_transaction_is_taken_again(
    world: World, setting: Setting
) -> None:
    """Shared counters would be filled from the whole log again before the next."""
    await world.journal.settle([accepted(world, world.ticket(await world.lease(10_000)))])
    journal = Watched(world.pools.recorder, loses=True)
    assert await Pending(journal, setting.counters).settle(setting.counters, NOW_MS) == 1


class Flooded(Journal):
    """While it settles those that there are, as many come."""

    def __init__(self, world: World, tickets: Iterator[Ticket]) -> None:
        super().__init__(world.pools.recorder)
        self._world, self._tickets = world, tickets

    async def settle_pending(self, judge: Judge, most: int) -> list[tuple[Event, Settled]] | None:
        moved = await super().settle_pending(judge, most)
        await self.settle([accepted(self._world, next(self._tickets)) for _ in moved or ()])
        return moved


async def test_settling_ends_however_many_come_meanwhile(
    world: World, setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a filling that settles them, and before whose end all that comes is pending, would go on for ever."""
    monkeypatch.setattr(pending, "AT_ONCE", 2)
    lease = await world.lease(100_000)
    tickets = (world.ticket(lease) for _ in range(10))
    await world.journal.settle([accepted(world, next(tickets)) for _ in range(4)])
    settling = Pending(Flooded(world, tickets), setting.counters)
    assert await settling.settle(setting.counters, NOW_MS) == 4
    assert await world.journal.count_pending() == 4


class Together(Counters):
    """None is answered before three are asked of."""

    def __init__(self) -> None:
        super().__init__()
        self._barrier = asyncio.Barrier(3)

    async def confirm(self, *asked: Any) -> bool:
        await self._barrier.wait()
        return await super().confirm(*asked)


async def test_the_counters_are_asked_of_many_before_they_answer(world: World) -> None:
    lease = await world.lease(100_000)
    await world.journal.settle([accepted(world, world.ticket(lease)) for _ in range(3)])
    counters = Together()
    async with asyncio.timeout(PATIENCE_S):
        assert await Pending(world.journal, counters).settle(counters, NOW_MS) == 3


async def test_behind_what_is_put_aside_as_many_are_settled_at_once_as_before(
    world: World, setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pending, "AT_ONCE", 3)
    lease = await world.lease(100_000)
    bad = replace(accepted(world, world.ticket(lease, surface="a\0b")), received_at_ms=NOW_MS)
    await world.journal.settle([bad, *(accepted(world, world.ticket(lease)) for _ in range(6))])
    journal = Watched(world.pools.recorder)
    assert await Pending(journal, setting.counters).settle(setting.counters, NOW_MS) == 6
    assert journal.turns == [3, 1, 3, 3, 3]
