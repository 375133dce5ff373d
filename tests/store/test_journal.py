import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from msgspec.structs import replace
from waiting import until_a_lock_is_waited_for
from world import NOW_MS, PRICE_MICROS, World, superuser

from adserve.database.pools import SETTINGS, open_pool, open_pools
from adserve.domain.events import Event, EventKind, Outcome, Settled
from adserve.domain.money import Money
from adserve.metering.errors import JournalAway, JournalContended, JournalRejected
from adserve.store.journal import Journal
from adserve.store.wire import CONFIRMED, EVENT_BYTES, HIDDEN, REFUSED, event_of

BILLED = Money(PRICE_MICROS, "USD")


async def test_an_event_is_stored_captured_posted_and_counted_at_once(world: World) -> None:
    lease = await world.lease(10_000)
    event = world.event(world.ticket(lease))
    assert await world.journal.settle([event]) == [Settled(event.event, Outcome.RECORDED, BILLED)]
    assert await world.fetchval("SELECT captured_micros FROM leases") == PRICE_MICROS
    assert await world.fetchval("SELECT sum(billed_micros) FROM rollup_deltas") == PRICE_MICROS
    balance = "SELECT sum(micros) FROM postings JOIN accounts a ON a.id = account_id WHERE a.kind = $1"
    assert await world.fetchval(balance, "revenue") == PRICE_MICROS
    assert await world.fetchval(balance, "held") == 10_000 - PRICE_MICROS
    assert await world.pools.recorder.fetchval("SELECT viewer FROM viewer_caps") == b"c" * 16
    assert await world.fetchval("SELECT viewer FROM viewer_log") == b"l" * 16


async def test_a_duplicate_has_the_first_ones_id_and_bills_nothing(world: World) -> None:
    lease = await world.lease(10_000)
    ticket = world.ticket(lease)
    first, again = world.event(ticket), world.event(ticket, seed=1)
    await world.journal.settle([first])
    assert await world.journal.settle([again]) == [Settled(first.event, Outcome.DUPLICATE, None)]
    within = world.ticket(lease)
    one, two = world.event(within), world.event(within, seed=1)
    assert await world.journal.settle([one, again, two]) == [
        Settled(one.event, Outcome.RECORDED, BILLED),
        Settled(first.event, Outcome.DUPLICATE, None),
        Settled(one.event, Outcome.DUPLICATE, None),
    ]
    assert await world.fetchval("SELECT captured_micros FROM leases") == 2 * PRICE_MICROS


async def test_what_does_not_fit_its_lease_is_over_budget(world: World) -> None:
    lease = await world.lease(2 * PRICE_MICROS + 1)
    events = [world.event(world.ticket(lease)) for _ in range(3)]
    outcomes = [settled.outcome for settled in await world.journal.settle(events)]
    assert outcomes == [Outcome.RECORDED, Outcome.RECORDED, Outcome.OVER_BUDGET]
    assert await world.fetchval("SELECT captured_micros FROM leases") == 2 * PRICE_MICROS


@pytest.mark.parametrize(
    "facts", [{"lease": 999}, {"campaign": 999}, {"currency": "EUR"}, {"advertiser": 999}]
)
async def test_a_lease_pays_for_its_own_campaign_only(world: World, facts: dict[str, object]) -> None:
    lease = await world.lease(10_000)
    event = world.event(world.ticket(**{"lease": lease} | facts))
    assert (await world.journal.settle([event]))[0].outcome is Outcome.OVER_BUDGET
    assert await world.fetchval("SELECT captured_micros FROM leases") == 0


async def test_other_kinds_are_stored_and_not_billed(world: World) -> None:
    ticket = world.ticket(await world.lease(10_000))
    outcomes = {"view": Outcome.UNBILLED_KIND, "click": Outcome.LATE, "impression": Outcome.OVER_CAP}
    events = [world.event(ticket, kind, outcome) for kind, outcome in outcomes.items()]
    assert [settled.outcome for settled in await world.journal.settle(events)] == list(outcomes.values())
    assert await world.fetchval("SELECT captured_micros FROM leases") == 0
    assert await world.fetchval("SELECT count(*) FROM viewer_log") == 1


async def test_a_value_that_no_column_takes_is_rejected_with_the_whole_batch(world: World) -> None:
    lease = await world.lease(10_000)
    for facts in ({"country": "\0"}, {"position": 2**40}, {"price_micros": 0}, {"issued_at_ms": 0}):
        with pytest.raises(JournalRejected):
            await world.journal.settle(
                [world.event(world.ticket(lease)), world.event(world.ticket(lease, **facts))]
            )
    assert await world.fetchval("SELECT count(*) FROM events") == 0


async def test_quarantine_keeps_what_no_column_takes_and_the_first_of_a_ticket(world: World) -> None:
    ticket = world.ticket(1, country="\0")
    first, again = world.event(ticket), world.event(ticket, seed=1)
    assert await world.journal.quarantine(first, "no\0") == first.event
    assert await world.journal.quarantine(again, "no") == first.event
    kept = await world.journal.of_ticket(ticket)
    assert [(one.event, one.kind, one.outcome, one.billed) for one in kept] == [
        (first.event, EventKind.IMPRESSION, Outcome.ACCEPTED, None)
    ]


async def test_a_database_that_went_away_is_told_as_such(world: World) -> None:
    event = world.event(world.ticket(await world.lease(10_000)))
    await world.pools.recorder.close()
    with pytest.raises(JournalAway):
        await world.journal.settle([event])


async def test_a_lock_that_is_not_had_in_time_is_tried_again_in_the_same_epoch(
    world: World, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the server's own settings bound how long a lock is waited for."""
    event = world.event(world.ticket(await world.lease(10_000)))
    monkeypatch.setitem(SETTINGS, "lock_timeout", "50ms")
    hasty = await open_pool(database_url, "adserve_recorder", size=1)
    async with hasty, world.pools.owner.acquire() as holder, holder.transaction():
        await holder.execute("LOCK TABLE leases")
        with pytest.raises(JournalContended):
            await Journal(hasty).settle([event])


async def test_events_of_a_ticket_and_since_a_moment(world: World) -> None:
    ticket = world.ticket(await world.lease(10_000))
    events: list[Event] = [
        world.event(ticket),
        world.event(ticket, "click", Outcome.UNBILLED_KIND, 1),
        world.event(ticket, "hide", Outcome.UNBILLED_KIND, 2),
        world.event(ticket, "report", Outcome.UNBILLED_KIND, 3),
    ]
    await world.journal.settle(events)
    assert {one.kind: one.billed for one in await world.journal.of_ticket(ticket)} == {
        EventKind.IMPRESSION: BILLED,
        EventKind.CLICK: None,
        EventKind.HIDE: None,
        EventKind.REPORT: None,
    }
    counted = [one async for one in Journal(world.pools.recorder).since(NOW_MS)]
    assert {one.kind for one in counted} == {EventKind.IMPRESSION, EventKind.HIDE, EventKind.REPORT}
    assert await world.journal.count_since(NOW_MS) == len(counted)
    assert counted[0].viewer == ticket.viewer_cap
    assert counted[0].labels == ("food",)
    assert counted[0].expires_at_ms == ticket.expires_at_ms
    assert [one async for one in world.journal.since(NOW_MS + 1_001)] == []


async def test_the_newest_hides_and_reports_are_found_oldest_first(world: World) -> None:
    lease, hidden_ms = await world.lease(10_000), NOW_MS + 1_000
    tickets = [world.ticket(lease, viewer_cap=bytes([number]) * 16) for number in range(3)]
    for after_ms, kind, ticket in zip((0, 1, 2), ("impression", "hide", "report"), tickets, strict=True):
        event = world.event(ticket, kind, Outcome.UNBILLED_KIND)
        await world.journal.settle([replace(event, received_at_ms=hidden_ms + after_ms)])
    found = [(one.viewer_cap, one.advertiser, hidden_ms + at) for at, one in enumerate(tickets)]
    assert await world.journal.hides(NOW_MS, 10) == found[1:]
    assert await world.journal.hides(hidden_ms + 2, 10) == found[2:]
    assert await world.journal.hides(NOW_MS, 1) == found[2:]


async def test_what_a_viewer_was_shown_is_packed_in_one_piece(world: World) -> None:
    lease = await world.lease(10_000)
    seen, refused, late, hidden, plain, other, reported = (
        world.ticket(lease, **facts)
        for facts in ({}, {}, {}, {"ad": 2**40}, {"labels": ()}, {"viewer_cap": b"a" * 16}, {"labels": ()})
    )
    events = [
        (seen, "impression", Outcome.RECORDED),
        (seen, "view", Outcome.UNBILLED_KIND),
        (seen, "click", Outcome.UNBILLED_KIND),
        (refused, "impression", Outcome.OVER_CAP),
        (late, "impression", Outcome.LATE),
        (hidden, "hide", Outcome.UNBILLED_KIND),
        (plain, "impression", Outcome.RECORDED),
        (other, "impression", Outcome.RECORDED),
        (reported, "report", Outcome.UNBILLED_KIND),
    ]
    for nth, (ticket, kind, outcome) in enumerate(events):
        event = world.event(ticket, kind, outcome, nth)
        await world.journal.settle([replace(event, received_at_ms=NOW_MS + 1_000 + nth)])
    packed = [
        event_of(one.ad, one.campaign, one.advertiser, one.ticket, state, NOW_MS + 1_000 + nth)
        for nth, one, state in (
            (0, seen, CONFIRMED), (1, seen, CONFIRMED), (3, refused, REFUSED), (5, hidden, HIDDEN),
            (6, plain, CONFIRMED), (7, other, CONFIRMED), (8, reported, HIDDEN),
        )
    ]  # fmt: skip  # laid out as rows
    assert all(len(event) == EVENT_BYTES for event in packed)
    shown = {
        (viewer, labels): (events, last_ms)
        async for viewer, labels, events, last_ms in world.journal.shown_since(NOW_MS)
    }
    assert {of: last_ms - NOW_MS for of, (_, last_ms) in shown.items()} == {
        (seen.viewer_cap, ("food",)): 1_005, (plain.viewer_cap, ()): 1_008, (other.viewer_cap, ("food",)): 1_007,
    }  # fmt: skip  # laid out as rows
    together = b"".join(events for events, _ in shown.values())
    assert [viewer for viewer, _ in shown] == sorted(viewer for viewer, _ in shown)
    assert sorted(together[at : at + EVENT_BYTES] for at in range(0, len(together), EVENT_BYTES)) == sorted(
        packed
    )
    assert [one async for one in world.journal.shown_since(NOW_MS + 1_009)] == []


async def test_the_whole_log_is_read_however_long_it_is_sorted(
    world: World, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL gives up any other statement before."""
    await world.journal.settle([world.event(world.ticket(await world.lease(10_000)))])
    monkeypatch.setitem(SETTINGS, "statement_timeout", "50ms")
    pools, holder = await open_pools(database_url), await superuser(database_url)
    journal = Journal(pools.recorder)
    locked = holder.transaction()
    await locked.start()
    await holder.execute("LOCK TABLE events")
    with pytest.raises(JournalAway):  # the control
        await journal.count_since(NOW_MS)
    reading = asyncio.gather(*(all_of(each) for each in (journal.since(NOW_MS), journal.shown_since(NOW_MS))))
    await until_a_lock_is_waited_for(database_url)
    await asyncio.sleep(0.1)
    await locked.rollback()
    assert [len(read) for read in await reading] == [1, 1]
    await holder.close()
    await pools.close()


async def all_of(log: AsyncIterator[Any]) -> list[Any]:
    return [one async for one in log]
