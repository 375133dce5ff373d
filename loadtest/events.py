"""Events a second of the service: many a call beside what PostgreSQL takes of the same rows with nothing before or behind it,
one a call beside a bare aiohttp handler."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from adserve.bootstrap.core import system_clock
from adserve.domain.time import rfc3339
from loadtest.ceiling import Ceiling, ceiling
from loadtest.figures import Plan, Say, Spread, median, spread_of
from loadtest.generator import Load, LoadError, load, post
from loadtest.processes import Cores, serving
from loadtest.servers import Ready, Wanted
from loadtest.slots import SETTLED, tickets

BATCH_EVENTS = 100
CEILING_EVENTS = 1_000
"""In each transaction of what is without a service: as many as the recorder puts into one at most."""
SINGLES_CONNECTIONS = 64
"""Callers with one event a call, whose events share their commits, and callers of the bare handler beside them."""
SINGLES_PART = 5
"""One of so many tickets is sent in a call of its own."""


class Round(NamedTuple):
    """Events a second of one round: of the service in batches, of an insert of the same rows, of a narrow insert and of settling
    alone; of the service with one a call, and calls a second of the bare handler."""

    batches: Load
    same: float
    narrow: float
    settle: float
    singles: Load
    bare: Load

    @property
    def batched_per_s(self) -> float:
        return self.batches.per_s * BATCH_EVENTS

    @property
    def batch_ratio(self) -> float:
        return self.batched_per_s / self.same

    @property
    def singles_per_s(self) -> float:
        return self.singles.per_s

    @property
    def single_ratio(self) -> float:
        return self.singles.per_s / self.bare.per_s


class EventsFigures(NamedTuple):
    rounds: list[Round]
    outcomes: dict[str, int]

    def spread(self, figure: str) -> Spread:
        return spread_of(getattr(one, figure) for one in self.rounds)

    @property
    def p50_ms(self) -> float:
        return median(one.batches.p50_ms for one in self.rounds)

    @property
    def p99_ms(self) -> float:
        return median(one.batches.p99_ms for one in self.rounds)


async def measure(
    plan: Plan, cores: Cores, service: Ready, bodies: Sequence[Mapping[str, Any]], database_url: str, say: Say
) -> EventsFigures:
    rounds: list[Round] = []
    outcomes: Counter[str] = Counter()
    (token,) = await tickets(service, bodies, 1)
    answer = (await load(service.port, _calls([token], 1, service.key), connections=1)).bodies[0]
    async with (
        ceiling(database_url, CEILING_EVENTS) as database,
        serving("bare", cores.server, Wanted(answer.decode())) as bare,
    ):
        for nth in range(plan.rounds + 1):
            done = await _round(plan, service, bodies, database, bare)
            if nth == 0:
                continue  # a warm-up: connections open, plans are made
            rounds.append(done)
            outcomes += settled([*done.batches.bodies, *done.singles.bodies])
            say(f"events, round {nth} of {plan.rounds}: {_line(done)}")
    return EventsFigures(rounds, dict(outcomes))


def settled(bodies: Sequence[bytes]) -> Counter[str]:
    """Outcomes. Raises LoadError for one that cost less than settling: what is refused, a duplicate or spooled says nothing of that."""
    found = Counter(result["outcome"] for body in bodies for result in orjson.loads(body)["results"])
    if not found.keys() <= set(SETTLED):
        raise LoadError(f"not all events were settled: {dict(found)}")
    return found


async def _round(
    plan: Plan, service: Ready, bodies: Sequence[Mapping[str, Any]], database: Ceiling, bare: Ready
) -> Round:
    batched = await tickets(service, bodies, plan.round_events)
    settled = await tickets(service, bodies, plan.round_events)
    one_by_one = _calls(await tickets(service, bodies, plan.round_events // SINGLES_PART), 1, service.key)
    calls = _calls(batched, BATCH_EVENTS, service.key)
    return Round(
        batches=await load(service.port, calls, connections=plan.connections, kept_every=1),
        same=await database.same_per_s(batched),
        narrow=await database.narrow_per_s(batched),
        settle=await database.settle_per_s(settled),
        singles=await load(service.port, one_by_one, connections=SINGLES_CONNECTIONS, kept_every=1),
        bare=await load(bare.port, one_by_one, connections=SINGLES_CONNECTIONS),
    )


def _line(done: Round) -> str:
    return (
        f"{done.batched_per_s:,.0f}/s, same rows {done.same:,.0f}/s, narrow {done.narrow:,.0f}/s, settling alone "
        f"{done.settle:,.0f}/s; one a call {done.singles.per_s:,.0f}/s, bare {done.bare.per_s:,.0f}/s"
    )


def _calls(tokens: Sequence[str], size: int, key: str) -> list[bytes]:
    at = rfc3339(system_clock())
    events = [
        {"ticket": token, "kind": "impression", "occurred_at": at, "view_ms": 1_200} for token in tokens
    ]
    bodies = (orjson.dumps({"events": events[start : start + size]}) for start in range(0, len(events), size))
    return [post("/v1/events", body, key) for body in bodies]
