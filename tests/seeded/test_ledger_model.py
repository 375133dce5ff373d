"""The model that simulations run on does what the real function does with the same batches."""

import random
from typing import Any

import pytest
from ledger_model import Books, Lease
from world import NOW_MS, PRICE_MICROS, REPLICA, World, make_world

from adserve.database.pools import Pools
from adserve.domain.events import Event, EventKind, Outcome
from adserve.domain.ids import EventId, derived_uuid7
from adserve.domain.tickets import Ticket
from adserve.domain.time import day_of
from adserve.domain.traffic import UNJUDGED, Reason, Verdict

BATCHES = 60
TICKETS = 150
SHARES = {
    Outcome.RECORDED: 12, Outcome.UNBILLED_KIND: 2, Outcome.LATE: 1, Outcome.OVER_CAP: 2, Outcome.ACCEPTED: 1,
    Outcome.INVALID_TRAFFIC: 1,
}  # fmt: skip  # laid out as rows


async def world_and_books(pools: Pools) -> tuple[World, Books, list[int]]:
    """Leases for a few events each; the last one is closed."""
    world, books = await make_world(pools), Books()
    numbers = [await world.lease(events * PRICE_MICROS) for events in (3, 10, 30, 5)]
    for number, events in zip(numbers, (3, 10, 30, 5), strict=True):
        books.leases[number] = Lease(
            world.campaign, world.advertiser, "USD", day_of(NOW_MS), events * PRICE_MICROS, REPLICA, NOW_MS, NOW_MS
        )  # fmt: skip  # laid out as rows
    closing = {numbers[-1]: NOW_MS}
    await world.ledger.freeze(closing, NOW_MS)
    await world.ledger.close_due(NOW_MS)
    books.freeze(closing)
    books.close_due(NOW_MS)
    return world, books, numbers


def drawn_ticket(world: World, leases: list[int], chance: random.Random) -> Ticket:
    strange: dict[str, Any] = chance.choice(
        [{}] * 12 + [{"campaign": world.campaign + 1}, {"currency": "EUR"}]
    )
    price = PRICE_MICROS * chance.choice((1, 1, 1, 2))
    return world.ticket(chance.choice([*leases, 999_999]), price_micros=price, **strange)


@pytest.mark.parametrize("seed", range(3))
async def test_random_batches_settle_alike(pools: Pools, seed: int) -> None:
    world, books, leases = await world_and_books(pools)
    chance = random.Random(seed)
    tickets = [drawn_ticket(world, leases, chance) for _ in range(TICKETS)]
    for batch in range(BATCHES):
        events = [
            drawn_event(chance.choice(tickets), batch * 100 + nth, chance)
            for nth in range(chance.randint(1, 12))
        ]
        events = one_fate_a_key(events)
        ours = [event for event in events if event.outcome is not Outcome.ACCEPTED]
        waiting = [event for event in events if event.outcome is Outcome.ACCEPTED]
        settled = iter(books.settle(ours))
        kept = iter([books.keep_pending(event) for event in waiting])
        expected = [next(kept if event.outcome is Outcome.ACCEPTED else settled) for event in events]
        assert await world.journal.settle(events) == expected
    captured = dict(await pools.recorder.fetch("SELECT id, captured_micros FROM leases"))
    assert captured == {number: lease.captured_micros for number, lease in books.leases.items()}
    assert any(captured.values())
    assert {stored.outcome for stored in books.events.values()} == set(SHARES) - {Outcome.ACCEPTED} | {
        Outcome.OVER_BUDGET
    }
    assert await world.fetchval("SELECT count(*) FROM events") == len(books.events)


def drawn_event(ticket: Ticket, seed: int, chance: random.Random) -> Event:
    (outcome,) = chance.choices(list(SHARES), list(SHARES.values()))
    kind = EventKind.CLICK if outcome is Outcome.UNBILLED_KIND else EventKind.IMPRESSION
    event = EventId(derived_uuid7(NOW_MS, seed, 3))
    verdict = Verdict(reason=Reason.DECLARED_BOT) if outcome is Outcome.INVALID_TRAFFIC else UNJUDGED
    return Event(event, kind, ticket, outcome, NOW_MS + seed, None, None, verdict)


def one_fate_a_key(events: list[Event]) -> list[Event]:
    """The same ticket and kind does not wait and settle within one batch: the counters answer for both or for neither."""
    fate: dict[object, bool] = {}
    return [
        event
        for event in events
        if fate.setdefault((event.ticket.ticket, event.kind), event.outcome is Outcome.ACCEPTED)
        is (event.outcome is Outcome.ACCEPTED)
    ]
