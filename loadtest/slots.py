"""Slots a second of the service, beside an aiohttp handler that only parses and serialises the same JSON."""

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, NamedTuple

import orjson

from loadtest.figures import Plan, Say, Spread, spread_of
from loadtest.generator import Load, load, post
from loadtest.processes import Cores, cpu_s, serving
from loadtest.servers import Ready, Wanted

EXPLAINED = 200
"""Viewers for whom the service is asked what it considered."""
WARM_UP_S = 4.0
"""Until the leases of the campaigns have grown to the rate at which they are drawn on."""
GENERATOR_BUSY_MAX = 0.9
"""A generator that is busier than this has no time to see how fast the server is."""


class SlotsFigures(NamedTuple):
    """`cpu_us` is what a request costs of the server's core, `matched` are the ads that fit a viewer, `filled` is the
    share of requests with an ad, `alone` the service with one request at a time."""

    adserve: Spread
    bare: Spread
    adserve_cpu_us: Spread
    bare_cpu_us: Spread
    generator_per_s: float
    generator_busy: float
    p50_ms: float
    p99_ms: float
    bare_p50_ms: float
    bare_p99_ms: float
    alone_p50_ms: float
    alone_p99_ms: float
    matched_p50: int
    matched_p99: int
    filled: float
    ads_per_request: float

    @property
    def ratio(self) -> float:
        return self.adserve.median / self.bare.median

    @property
    def cpu_ratio(self) -> float:
        return self.bare_cpu_us.median / self.adserve_cpu_us.median


class _Round(NamedTuple):
    load: Load
    cpu_us: float


async def measure(
    plan: Plan, cores: Cores, service: Ready, bodies: Sequence[Mapping[str, Any]], say: Say
) -> SlotsFigures:
    requests = [post("/v1/slots", orjson.dumps(body), service.key) for body in bodies]
    say("warming up")
    warm = await load(service.port, requests, connections=plan.connections, seconds=WARM_UP_S)
    typical = sorted(warm.bodies, key=len)[len(warm.bodies) // 2].decode()
    matched = await _matched(service, bodies[:EXPLAINED])
    ours: list[_Round] = []
    theirs: list[_Round] = []
    async with AsyncExitStack() as stack:
        bare = await stack.enter_async_context(serving("bare", cores.server, Wanted(typical)))
        trivial = await stack.enter_async_context(serving("trivial", cores.server, Wanted(typical)))
        await load(bare.port, requests, connections=plan.connections, seconds=1.0)
        for nth in range(plan.rounds):
            ours.append(await _round(plan, service, requests))
            theirs.append(await _round(plan, bare, requests))
            say(
                f"slots, round {nth + 1} of {plan.rounds}: "
                f"adserve {ours[-1].load.per_s:,.0f}/s, bare {theirs[-1].load.per_s:,.0f}/s"
            )
        alone = await load(service.port, requests, connections=1, seconds=plan.round_s)
        most = await load(trivial.port, requests, connections=plan.connections, seconds=plan.round_s)
    busy = max(one.load.busy for one in theirs)
    if busy > GENERATOR_BUSY_MAX:
        say(
            f"warning: the generator was busy {busy:.0%} of its core: the bare handler may be faster than it seems"
        )
    placed = [len(orjson.loads(body)["placements"]) for one in ours for body in one.load.bodies]
    return SlotsFigures(
        adserve=spread_of(one.load.per_s for one in ours),
        bare=spread_of(one.load.per_s for one in theirs),
        adserve_cpu_us=spread_of(one.cpu_us for one in ours),
        bare_cpu_us=spread_of(one.cpu_us for one in theirs),
        generator_per_s=most.per_s,
        generator_busy=busy,
        p50_ms=spread_of(one.load.p50_ms for one in ours).median,
        p99_ms=spread_of(one.load.p99_ms for one in ours).median,
        bare_p50_ms=spread_of(one.load.p50_ms for one in theirs).median,
        bare_p99_ms=spread_of(one.load.p99_ms for one in theirs).median,
        alone_p50_ms=alone.p50_ms,
        alone_p99_ms=alone.p99_ms,
        matched_p50=matched[len(matched) // 2],
        matched_p99=matched[len(matched) * 99 // 100],
        filled=sum(map(bool, placed)) / len(placed),
        ads_per_request=sum(placed) / len(placed),
    )


async def _round(plan: Plan, server: Ready, requests: Sequence[bytes]) -> _Round:
    before_s = cpu_s(server.pid)
    done = await load(server.port, requests, connections=plan.connections, seconds=plan.round_s)
    return _Round(done, (cpu_s(server.pid) - before_s) * 1e6 / (done.per_s * plan.round_s))


async def tickets(service: Ready, bodies: Sequence[Mapping[str, Any]], wanted: int) -> list[str]:
    """Tickets that no event was sent for. Raises LookupError when the service places too few ads."""
    asked = [orjson.dumps(body) for body in bodies]
    requests = [post("/v1/slots", body, service.key) for body in asked]
    found: list[str] = []
    while len(found) < wanted:
        answers = (await load(service.port, requests[:wanted], connections=4, kept_every=1)).bodies
        placed = [place["ticket"] for body in answers for place in orjson.loads(body)["placements"]]
        if not placed:
            raise LookupError("the service places no ads")
        found += placed
    return found[:wanted]


async def _matched(service: Ready, bodies: Sequence[Mapping[str, Any]]) -> list[int]:
    """How many ads fit each viewer, ascending."""
    requests = [
        post("/v1/slots", orjson.dumps({**body, "explain": True, "deadline_ms": 1_000}), service.key)
        for body in bodies
    ]
    answers = (await load(service.port, requests, connections=1, kept_every=1)).bodies
    return sorted(orjson.loads(body)["explanation"]["funnel"]["targeted"] for body in answers)
