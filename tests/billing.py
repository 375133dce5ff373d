"""Charges at chosen moments and the invoices that come of them, in a small advertiser's world."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

from world import PRICE_MICROS, World, superuser

from adserve.accounting.invoices import Invoice, Line, Seller, Status
from adserve.database import partitions
from adserve.domain.events import Event, EventKind, Outcome
from adserve.domain.ids import EventId, derived_uuid7
from adserve.domain.time import DAY_MS, HOUR_MS, to_ms
from adserve.domain.traffic import UNJUDGED, Reason, Verdict
from adserve.store import invoices
from adserve.store.invoices import Drafts
from adserve.store.ledger import Charge, deposit, issue_credit

SELLER = Seller("Status Ads Ltd", ("1 Feed Street",), "IE1234567X")
SETTLED_AFTER_MS = 25 * HOUR_MS
LEASE_MICROS = 5_000_000
ALL = invoices.Filters(None, None, None, None)


class Billing:
    """`world`'s advertiser with its campaign, and others beside it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.currency = "USD"
        self._drafts = Drafts(world.pools.operator, SETTLED_AFTER_MS)
        self._leases: dict[tuple[int, date], int] = {}
        self._tickets = 0

    async def live_in(self, zone: str) -> None:
        await self.world.pools.operator.execute("UPDATE advertisers SET time_zone = $1", zone)

    async def spend_in(self, currency: str) -> None:
        self.currency = currency
        await self.world.pools.operator.execute("UPDATE campaigns SET currency = $1", currency)
        await deposit(self.world.pools.operator, self.world.advertiser, 10**12, currency, "test", 0)

    async def charge(
        self,
        moment: datetime,
        price_micros: int = PRICE_MICROS,
        count: int = 1,
        *,
        campaign: int | None = None,
        kind: EventKind = EventKind.IMPRESSION,
        outcome: Outcome = Outcome.RECORDED,
    ) -> list[Event]:
        """So many events that were received at a moment, on tickets that bill impressions."""
        campaign, at_ms = campaign or self.world.campaign, to_ms(moment)
        day = moment.date()
        async with self.world.pools.owner.acquire() as connection:
            await partitions.ensure(connection, day, day)
        lease = self._leases.get((campaign, day))
        if lease is None:
            lease = self._leases[campaign, day] = await self.world.lease(
                max(LEASE_MICROS, 2 * count * price_micros), campaign, day
            )
        events = []
        for _ in range(count):
            self._tickets += 1
            ticket = self.world.ticket(
                lease,
                ticket=derived_uuid7(at_ms, self._tickets, 0),
                campaign=campaign,
                price_micros=price_micros,
                currency=self.currency,
                budget_day=day.toordinal(),
                issued_at_ms=at_ms,
                expires_at_ms=at_ms + HOUR_MS,
            )
            event = EventId(derived_uuid7(at_ms, self._tickets, 1))
            verdict = Verdict(reason=Reason.DECLARED_BOT) if outcome is Outcome.INVALID_TRAFFIC else UNJUDGED
            events.append(Event(event, kind, ticket, outcome, at_ms, None, None, verdict))
        settled = await self.world.journal.settle(events)
        assert {one.outcome for one in settled} == {outcome}
        return events

    async def close_leases(self, now: date) -> None:
        """What the keeper does when their last ticket is over."""
        at_ms = to_ms(datetime.combine(now, datetime.min.time(), UTC))
        await self.world.ledger.freeze(dict.fromkeys(self._leases.values(), at_ms), at_ms)
        await self.world.ledger.close_due(at_ms)
        self._leases.clear()

    async def credit(self, event: Event, micros: int | None = None, reason: str = "invalid") -> int | None:
        ticket = event.ticket
        charge = Charge(
            datetime.fromtimestamp(ticket.issued_at_ms / 1_000, UTC).date(), ticket.ticket, event.kind
        )
        return await issue_credit(
            self.world.pools.recorder, charge, reason, event.received_at_ms + DAY_MS, micros=micros
        )

    async def drafted(self, month: date, into: timedelta = timedelta(days=2)) -> list[Invoice]:
        """The new drafts that there are two days into a month, or as long as told."""
        before = {invoice.id for invoice in await self.all()}
        now = datetime.combine(month, datetime.min.time(), UTC) + into
        made = await self._drafts.step(to_ms(now))
        new = [invoice for invoice in await self.all() if invoice.id not in before]
        assert made == len(new)
        return new

    async def all(self) -> list[Invoice]:
        return await invoices.page(self.world.pools.operator, 0, 1_000, ALL)

    async def find(self, id_: int) -> Invoice:
        return await invoices.one(self.world.pools.operator, id_)

    async def lines(self, invoice: Invoice) -> list[Line]:
        return await invoices.lines(self.world.pools.operator, invoice.id)

    async def issue(self, draft: Invoice) -> Invoice:
        at_ms = to_ms(draft.drafted_at) + DAY_MS
        assert await invoices.issue(self.world.pools.operator, draft.id, SELLER, at_ms) is Status.DRAFT
        return await self.find(draft.id)

    async def void(self, invoice: Invoice) -> Status:
        return await invoices.void(
            self.world.pools.operator, invoice.id, to_ms(invoice.drafted_at) + 2 * DAY_MS
        )

    async def pay(self, invoice: Invoice) -> Status:
        return await invoices.pay(
            self.world.pools.operator, invoice.id, to_ms(invoice.drafted_at) + 3 * DAY_MS
        )

    async def revenue(self, month: date) -> int:
        """What was posted for events of a month, in UTC."""
        posted: int = await self.world.fetchval(
            "SELECT sum(micros)::bigint FROM postings p JOIN accounts a ON a.id = account_id JOIN transactions t ON t.id = transaction_id"
            " WHERE a.kind = 'revenue' AND t.kind = 'settle' AND t.at >= $1 AND t.at < $1 + interval '1 month'",
            datetime.combine(month, datetime.min.time(), UTC),
        )
        return posted

    async def balance(self, kind: str) -> int:
        posted: int = await self.world.fetchval(
            "SELECT coalesce(sum(micros), 0)::bigint FROM postings p JOIN accounts a ON a.id = account_id WHERE a.kind = $1 AND a.currency = $2",
            kind,
            self.currency,
        )
        return posted

    async def drafts_of_others(self, count: int) -> None:
        """Drafts without lines, one for each of as many new advertisers."""
        await self.world.pools.owner.execute(
            "WITH others AS (INSERT INTO advertisers (name) SELECT 'a' FROM generate_series(1, $1) RETURNING id),"
            " opened AS (SELECT open_accounts(id, 'USD') FROM others)"
            " INSERT INTO invoices (advertiser_id, currency, month, time_zone, exponent, buyer, gross_micros, invalid_micros,"
            " credits_micros, net_micros, total_micros, drafted_at)"
            " SELECT id, 'USD', '2026-01-01', 'UTC', 2, 'a', 0, 0, 0, 0, 0, '2026-02-03' FROM others, (SELECT count(*) FROM opened) AS o",
            count,
        )

    async def draft_ids(self) -> list[int]:
        return [invoice.id for invoice in await self.all() if invoice.status is Status.DRAFT]

    async def replace_in(
        self, function: str, part: str, other: str, database_url: str, *, before: str = "SELECT"
    ) -> None:
        """A broken twin of a function of the database."""
        owner = await superuser(database_url)
        await owner.execute(before)
        source: Any = await owner.fetchval("SELECT pg_get_functiondef($1::regproc)", function)
        assert source.count(part) == 1
        await owner.execute(source.replace(part, other))
        await owner.close()


async def issued_numbers(world: World) -> list[str]:
    rows = await world.pools.analyst.fetch(
        "SELECT number FROM invoices WHERE number IS NOT NULL ORDER BY number"
    )
    return [number for (number,) in rows]
