"""Events a second of the service, beside what PostgreSQL takes of the same rows with nothing before or behind it."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
import orjson

from adserve.bootstrap.core import draw_128_bits, system_clock
from adserve.database import statements
from adserve.database.pools import open_pool
from adserve.domain.events import Event, EventKind, Outcome
from adserve.domain.ids import EventId, derived_uuid7
from adserve.domain.time import day_of, from_ms, rfc3339
from adserve.metering.tickets import Sealer
from adserve.store import journal
from adserve.store.secrets import Secrets
from loadtest.figures import Plan, Say, Spread, spread_of
from loadtest.generator import Load, load, post
from loadtest.servers import Ready
from loadtest.slots import tickets

SQL = statements.load(Path(__file__).parent / "sql" / "ceiling.sql")

BATCH_EVENTS = 100
SINGLES_PART = 10
"""One of so many tickets is sent in a call of its own, in a load of its own."""
CEILING_CONNECTIONS = 4

Columns = list[list[Any]]


class EventsFigures(NamedTuple):
    """Events a second: of the service in batches and one by one, of a plain insert, and of settle() alone."""

    adserve: Spread
    singles: Spread
    insert: Spread
    settle: Spread
    p50_ms: float
    p99_ms: float
    outcomes: dict[str, int]

    @property
    def ratio(self) -> float:
        return self.adserve.median / self.insert.median


class Ceiling:
    """PostgreSQL alone: what it takes from arrays that are ready, on a few connections."""

    def __init__(self, raw: asyncpg.Pool, recorder: asyncpg.Pool, sealer: Sealer) -> None:
        self._raw = raw
        self._recorder = recorder
        self._sealer = sealer

    async def insert_per_s(self, tokens: Sequence[str]) -> float:
        batches = [_narrow(batch) for batch in _batches(self._opened(tokens))]
        return await _per_s(self._raw, SQL.insert, batches)

    async def settle_per_s(self, tokens: Sequence[str]) -> float:
        batches = [journal.columns_of(batch) for batch in _batches(self._opened(tokens))]
        return await _per_s(self._recorder, journal.SQL.settle, batches)

    def _opened(self, tokens: Sequence[str]) -> list[Event]:
        now_ms, seed = system_clock(), draw_128_bits()
        events = []
        for nth, token in enumerate(tokens):
            ticket = self._sealer.open(token, now_ms)
            billed = ticket.billable == EventKind.IMPRESSION
            outcome = Outcome.RECORDED if billed else Outcome.UNBILLED_KIND
            event = EventId(derived_uuid7(now_ms, seed, nth))
            events.append(Event(event, EventKind.IMPRESSION, ticket, outcome, now_ms, now_ms, 1_200))
        return events


@asynccontextmanager
async def ceiling(database_url: str) -> AsyncIterator[Ceiling]:
    async with asyncpg.create_pool(database_url, min_size=1, max_size=CEILING_CONNECTIONS) as raw:
        await raw.execute(SQL.create)
        recorder = await open_pool(database_url, "adserve_recorder", size=CEILING_CONNECTIONS)
        keys = await open_pool(database_url, "adserve_catalogue", size=1)
        async with recorder, keys:
            yield Ceiling(raw, recorder, Sealer(await Secrets(keys).ticket_keys()))


async def measure(
    plan: Plan, service: Ready, bodies: Sequence[Mapping[str, Any]], database_url: str, say: Say
) -> EventsFigures:
    ours: list[Load] = []
    singles: list[float] = []
    insert: list[float] = []
    settle: list[float] = []
    outcomes: Counter[str] = Counter()
    async with ceiling(database_url) as database:
        for nth in range(plan.rounds + 1):
            fresh = await tickets(service, bodies, 2 * plan.round_events + plan.round_events // SINGLES_PART)
            batched, others = fresh[: plan.round_events], fresh[plan.round_events : 2 * plan.round_events]
            sent = await load(
                service.port,
                _calls(batched, BATCH_EVENTS, service.key),
                connections=plan.connections,
                kept_every=1,
            )
            inserted_per_s = await database.insert_per_s(batched)
            settled_per_s = await database.settle_per_s(others)
            one_by_one = _calls(fresh[2 * plan.round_events :], 1, service.key)
            single = await load(service.port, one_by_one, connections=plan.connections)
            if nth == 0:
                continue  # a warm-up: connections open, plans are made
            ours.append(sent)
            outcomes.update(
                result["outcome"] for body in sent.bodies for result in orjson.loads(body)["results"]
            )
            singles.append(single.per_s)
            insert.append(inserted_per_s)
            settle.append(settled_per_s)
            say(
                f"events, round {nth} of {plan.rounds}: adserve {sent.per_s * BATCH_EVENTS:,.0f}/s, "
                f"insert {inserted_per_s:,.0f}/s, settle() {settled_per_s:,.0f}/s"
            )
    return EventsFigures(
        adserve=spread_of(one.per_s * BATCH_EVENTS for one in ours),
        singles=spread_of(singles),
        insert=spread_of(insert),
        settle=spread_of(settle),
        p50_ms=spread_of(one.p50_ms for one in ours).median,
        p99_ms=spread_of(one.p99_ms for one in ours).median,
        outcomes=dict(outcomes),
    )


def _calls(tokens: Sequence[str], size: int, key: str) -> list[bytes]:
    at = rfc3339(system_clock())
    events = [
        {"ticket": token, "kind": "impression", "occurred_at": at, "view_ms": 1_200} for token in tokens
    ]
    bodies = (orjson.dumps({"events": events[start : start + size]}) for start in range(0, len(events), size))
    return [post("/v1/events", body, key) for body in bodies]


def _batches(events: Sequence[Event]) -> Iterator[Sequence[Event]]:
    return (events[start : start + BATCH_EVENTS] for start in range(0, len(events), BATCH_EVENTS))


def _narrow(events: Sequence[Event]) -> Columns:
    rows = (
        (
            day_of(event.ticket.issued_at_ms),
            event.ticket.ticket,
            event.kind.value,
            event.event,
            event.outcome.value,
            event.ticket.price_micros if event.outcome is Outcome.RECORDED else 0,
            event.ticket.campaign,
            from_ms(event.received_at_ms),
        )
        for event in events
    )
    return [list(column) for column in zip(*rows, strict=True)]


async def _per_s(pool: asyncpg.Pool, statement: str, batches: Sequence[Columns]) -> float:
    """Rows a second when every connection takes the next batch as soon as its last has committed."""
    waiting = iter(batches)

    async def work() -> None:
        async with pool.acquire() as connection:
            for columns in waiting:
                await connection.fetch(statement, *columns)

    started_s = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(CEILING_CONNECTIONS):
            group.create_task(work())
    return sum(len(columns[0]) for columns in batches) / (time.perf_counter() - started_s)
