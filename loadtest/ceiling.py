"""What PostgreSQL alone takes of the same events, from arrays that are ready, on a few connections."""

import asyncio
import itertools
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import date
from pathlib import Path
from typing import Any

import asyncpg

from adserve.bootstrap.core import draw_128_bits, system_clock
from adserve.database import statements
from adserve.database.pools import open_pool
from adserve.domain.events import Event, EventKind, Outcome
from adserve.domain.ids import EventId, derived_uuid7s
from adserve.domain.time import HOUR_MS, day_of, from_ms
from adserve.metering.tickets import Sealer
from adserve.store import journal
from adserve.store.secrets import Secrets

SQL = statements.load(Path(__file__).parent / "sql" / "ceiling.sql")

CONNECTIONS = 4

Columns = list[list[Any]]


class Ceiling:
    """Events a second, `batch` of them in a transaction."""

    def __init__(self, raw: asyncpg.Pool, recorder: asyncpg.Pool, sealer: Sealer, batch: int) -> None:
        self._raw = raw
        self._recorder = recorder
        self._sealer = sealer
        self._batch = batch
        self._transactions = itertools.count(1)

    async def narrow_per_s(self, tokens: Sequence[str]) -> float:
        """Of an insert of eight columns."""
        batches = [_columns(map(_narrow, events)) for events in self._batches(tokens)]
        return len(tokens) / await _seconds(self._raw, SQL.insert, batches)

    async def same_per_s(self, tokens: Sequence[str]) -> float:
        """Of an insert of the rows that are written of each event when it is settled."""
        batches = [self._same(events) for events in self._batches(tokens)]
        return len(tokens) / await _seconds(self._raw, SQL.insert_same, batches)

    async def settle_per_s(self, tokens: Sequence[str]) -> float:
        """Of settling itself."""
        batches: list[list[Any]] = [[journal.rows_of(events), None] for events in self._batches(tokens)]
        return len(tokens) / await _seconds(self._recorder, journal.SQL.settle, batches)

    def _batches(self, tokens: Sequence[str]) -> Iterator[list[Event]]:
        now_ms = system_clock()
        ids = derived_uuid7s(now_ms, draw_128_bits(), len(tokens))
        events = [
            self._event(token, EventId(event), now_ms) for token, event in zip(tokens, ids, strict=True)
        ]
        return (events[start : start + self._batch] for start in range(0, len(events), self._batch))

    def _event(self, token: str, event: EventId, now_ms: int) -> Event:
        ticket = self._sealer.open(token, now_ms)
        billed = ticket.billable == EventKind.IMPRESSION
        outcome = Outcome.RECORDED if billed else Outcome.UNBILLED_KIND
        return Event(event, EventKind.IMPRESSION, ticket, outcome, now_ms, now_ms, 1_200)

    def _same(self, events: Sequence[Event]) -> Columns:
        return [
            *_columns(map(_wide, events)),
            *_columns(_postings(events, next(self._transactions))),
            *_columns(_deltas(events)),
        ]


@asynccontextmanager
async def ceiling(database_url: str, batch: int) -> AsyncIterator[Ceiling]:
    async with asyncpg.create_pool(database_url, min_size=1, max_size=CONNECTIONS) as raw:
        await raw.execute(SQL.create)
        recorder = await open_pool(database_url, "adserve_recorder", size=CONNECTIONS)
        keys = await open_pool(database_url, "adserve_catalogue", size=1)
        async with recorder, keys:
            yield Ceiling(raw, recorder, Sealer(await Secrets(keys).ticket_keys()), batch)


def _columns(rows: Iterable[tuple[object, ...]]) -> Columns:
    return [list(column) for column in zip(*rows, strict=True)]


def _billed(event: Event) -> int:
    return event.ticket.price_micros if event.outcome is Outcome.RECORDED else 0


def _narrow(event: Event) -> tuple[object, ...]:
    ticket = event.ticket
    return (
        day_of(ticket.issued_at_ms),
        ticket.ticket,
        event.kind.value,
        event.event,
        event.outcome.value,
        _billed(event),
        ticket.campaign,
        from_ms(event.received_at_ms),
    )


def _wide(event: Event) -> tuple[object, ...]:
    ticket = event.ticket
    return (
        day_of(ticket.issued_at_ms),
        ticket.ticket,
        event.kind.value,
        event.event,
        event.outcome.value,
        _billed(event),
        ticket.price_micros,
        ticket.currency,
        ticket.billable,
        ticket.bid_model,
        ticket.decision,
        ticket.advertiser,
        ticket.campaign,
        ticket.ad,
        ticket.creative,
        ticket.revision,
        ticket.lease,
        date.fromordinal(ticket.budget_day),
        ticket.epoch,
        ticket.surface,
        ticket.country,
        ticket.platform,
        ticket.position,
        ticket.propensity,
        ticket.model,
        ticket.catalogue_version,
        ticket.rules_version,
        ticket.arm,
        ",".join(ticket.labels),
        from_ms(ticket.issued_at_ms),
        from_ms(ticket.expires_at_ms),
        from_ms(event.received_at_ms),
        from_ms(event.received_at_ms),
        event.view_ms,
    )


def _postings(events: Sequence[Event], transaction: int) -> Iterator[tuple[object, ...]]:
    """Two for each campaign and lease; the accounts' numbers are made up."""
    micros: dict[tuple[int, int, int, str], int] = defaultdict(int)
    for event in events:
        ticket = event.ticket
        if event.outcome is Outcome.RECORDED:
            micros[ticket.advertiser, ticket.campaign, ticket.lease, ticket.currency] += ticket.price_micros
    for (advertiser, campaign, lease, currency), charged in micros.items():
        yield transaction, advertiser, campaign, lease, -charged, currency
        yield transaction, 0, campaign, lease, charged, currency


def _deltas(events: Sequence[Event]) -> Iterator[tuple[object, ...]]:
    billed: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for event in events:
        ticket, hour = event.ticket, from_ms(event.received_at_ms // HOUR_MS * HOUR_MS)
        ad = (ticket.advertiser, ticket.campaign, ticket.ad, ticket.currency)
        billed[hour, *ad, event.kind.value, event.outcome.value].append(_billed(event))
    for key, micros in billed.items():
        yield *key, len(micros), sum(micros)


async def _seconds(pool: asyncpg.Pool, statement: str, batches: Sequence[Columns]) -> float:
    """How long it takes when every connection takes the next batch as soon as its last has committed."""
    waiting = iter(batches)

    async def work() -> None:
        async with pool.acquire() as connection:
            for columns in waiting:
                await connection.fetch(statement, *columns)

    started_s = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(CONNECTIONS):
            group.create_task(work())
    return time.perf_counter() - started_s
