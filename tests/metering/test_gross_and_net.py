"""Random traffic of which the sender knows what is invalid: everything is stored, and gross - invalid = net to the micro."""

import asyncio
import random
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from test_intake import Counters
from test_tickets import KEY
from world import NOW_MS, World

from adserve.accounting.reconciliation import Reconciliation
from adserve.domain.events import Event, EventKind, Outcome, Settled
from adserve.domain.money import Money
from adserve.domain.tickets import Ticket
from adserve.domain.time import DAY_MS, HOUR_MS, from_ms
from adserve.domain.traffic import Rules, Source
from adserve.limits.hides import Hides
from adserve.limits.leases import LeaseBook
from adserve.metering.intake import Intake, Report
from adserve.metering.networks import decode_networks
from adserve.metering.origins import Origins
from adserve.metering.pseudonyms import Pseudonyms, ViewerSecrets
from adserve.metering.recorder import Journal, Recorder
from adserve.metering.tickets import Sealer
from adserve.metering.traffic import Traffic
from adserve.store import traffic
from adserve.store.books import reconciled

SEALER = Sealer([KEY])
TICKETS = 300
INVALID = (
    Source("Googlebot/2.1 (+http://www.google.com/bot.html)", "81.2.69.142", "d"),
    Source(None, "52.95.110.9"),
)
VALID = (None, Source("WhatsApp/2.26.1 A", "81.2.69.143"), Source(device="mine"), Source("", "nowhere"))


class Figures(NamedTuple):
    gross: int
    invalid: int
    net: int


class Sent(NamedTuple):
    ticket: Ticket
    kind: EventKind
    invalid: bool
    at_ms: int

    @property
    def report(self) -> Report:
        sources = INVALID if self.invalid else VALID
        view_ms = self.ticket.view_least_ms if self.kind is EventKind.VIEW else None
        source = sources[self.ticket.ticket.int % len(sources)]
        return Report(SEALER.seal(self.ticket), self.kind, view_ms=view_ms, source=source)


class Dropping:
    """A broken twin: throws invalid traffic away and says that it was stored."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.quarantine = journal.quarantine

    async def settle(self, events: Sequence[Event]) -> list[Settled]:
        kept = [event for event in events if event.outcome is not Outcome.INVALID_TRAFFIC]
        settled = iter(await self._journal.settle(kept) if kept else [])
        return [
            Settled(event.event, event.outcome, None)
            if event.outcome is Outcome.INVALID_TRAFFIC
            else next(settled)
            for event in events
        ]


async def traffic_of(world: World, chance: random.Random) -> list[Sent]:
    """Some late, some beyond the money that there is, many twice. What is invalid is so by its source alone."""
    leases = [await world.lease(micros) for micros in (100_000, 50_000_000)]
    sent = []
    for _ in range(TICKETS):
        ticket = world.ticket(
            chance.choice(leases),
            price_micros=chance.randrange(1, 5_000),
            billable=chance.choice(("impression", "view", "click")),
            issued_at_ms=NOW_MS - chance.choice((0, 0, 0, 3 * HOUR_MS)),
            expires_at_ms=NOW_MS + chance.choice((HOUR_MS, HOUR_MS, HOUR_MS, -HOUR_MS)),
            viewer_cap=chance.randbytes(16),
        )
        invalid = chance.random() < 0.4
        for kind in chance.sample(list(EventKind), chance.randrange(1, 4)):
            sent += [Sent(ticket, kind, invalid, NOW_MS + chance.randrange(60_000))] * chance.choice(
                (1, 1, 2)
            )
    chance.shuffle(sent)
    return sent


async def take_all(journal: Journal, sent: Sequence[Sent], chance: random.Random) -> Figures:
    """Sends them; answers what the sender makes of the answers."""
    rules = Traffic(Origins(Pseudonyms(ViewerSecrets(b"c" * 32, ((0, b"m" * 32),)))))
    unlimited = Rules(viewers_of_device=None, clicks_of_address=None, impressions_of_viewer=None)
    rules.use(1, unlimited, decode_networks(b"52.95.110.0/24"))
    recorder = Recorder(journal)
    intake = Intake(
        SEALER,
        Counters(epoch=0),
        LeaseBook(),
        recorder,
        lambda: chance.getrandbits(128),
        hides=Hides(),
        may_serve=lambda: True,
        traffic=rules,
    )
    running = asyncio.create_task(recorder.run())
    invalid = net = 0
    for one in sent:
        (answer,) = await intake.take([one.report], one.at_ms)
        late = one.at_ms > one.ticket.expires_at_ms
        if answer.outcome is not Outcome.DUPLICATE:
            assert (answer.outcome is Outcome.LATE) == late
            assert (answer.outcome is Outcome.INVALID_TRAFFIC) == (one.invalid and not late)
        if answer.outcome is Outcome.INVALID_TRAFFIC and one.kind == one.ticket.billable:
            invalid += one.ticket.price_micros
        if answer.outcome is Outcome.RECORDED:
            assert answer.billed == Money(one.ticket.price_micros, "USD")
            net += one.ticket.price_micros
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    return Figures(invalid + net, invalid, net)


async def told(world: World) -> Figures:
    """What the report says of all days."""
    days = from_ms(NOW_MS - DAY_MS), from_ms(NOW_MS + DAY_MS)
    async with world.pools.analyst.acquire() as connection:
        rows = await traffic.report(connection, days, None, (days[0], 0), 1_000)
    names = ("gross_micros", "invalid_micros", "net_micros")
    return Figures(*(sum(row[name] for row in rows) for name in names))


async def books(world: World) -> Reconciliation:
    return await reconciled(world.pools.analyst)


async def test_gross_less_invalid_is_net(world: World) -> None:
    chance = random.Random(4)
    sent = await traffic_of(world, chance)
    expected = await take_all(world.journal, sent, chance)
    assert min(expected) > 0
    assert await told(world) == expected
    assert expected.gross - expected.invalid == expected.net
    assert await world.fetchval("SELECT sum(billed_micros) FROM events") == expected.net
    revenue = "SELECT sum(micros) FROM postings JOIN accounts a ON a.id = account_id WHERE a.kind = 'revenue'"
    assert await world.fetchval(revenue) == expected.net
    assert await world.fetchval("SELECT count(*) FROM events") == len(
        {(one.ticket.ticket, one.kind) for one in sent}
    )
    assert (await books(world)).exact


async def test_control_a_twin_that_drops_invalid_traffic_is_found_out(world: World) -> None:
    chance = random.Random(4)
    sent = await traffic_of(world, chance)
    expected = await take_all(Dropping(world.journal), sent, chance)
    assert await told(world) == Figures(expected.net, 0, expected.net) != expected
    assert await world.fetchval("SELECT count(*) FROM events") < len(
        {(one.ticket.ticket, one.kind) for one in sent}
    )


async def test_what_is_kept_of_an_event_that_is_invalid(world: World) -> None:
    chance = random.Random(5)
    sent = [one for one in await traffic_of(world, chance) if one.invalid][:40]
    await take_all(world.journal, sent, chance)
    reasons = await world.pools.analyst.fetch(
        "SELECT outcome, invalid_reason, traffic_rules, count(*) FROM events GROUP BY 1, 2, 3 ORDER BY 4"
    )
    assert {row["invalid_reason"] for row in reasons if row["outcome"] == "invalid_traffic"} == {
        "declared_bot",
        "data_centre",
    }
    assert {row["traffic_rules"] for row in reasons if row["outcome"] == "late"} <= {None}
    origins = await world.pools.recorder.fetch("SELECT crawlers, network, address, device FROM event_origins")
    assert {str(row["network"]) for row in origins} == {"81.2.69.0/24", "52.95.110.0/24"}
    assert all(len(row["address"]) == 16 for row in origins)
    everything = repr([dict(row) for row in origins])
    assert not any(raw in everything for raw in ("81.2.69.142", "52.95.110.9", "www.google.com"))
