"""Slot requests, beside an aiohttp handler that only parses and serialises the same JSON.

A round loads every server in turn, one at a time: as fast as they can (closed loop), and by a schedule (open loop) at 70 %
of what they could in this same round, and the service beyond what it can.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, NamedTuple

import orjson

from loadtest.figures import Plan, Say
from loadtest.generator import Load, LoadError, load, post
from loadtest.open_loop import NO_AD, Offered, offer
from loadtest.processes import Cores, children, cpu_s, serving
from loadtest.servers import Ready, Wanted

EXPLAINED = 200
"""Viewers for whom the service is asked what it considered."""
WARM_UP_S = 4.0
"""Until the leases of the campaigns have grown to the rate at which they are drawn on."""
ROUNDS_BEFORE_TWO = 8
"""A request goes to either worker, so that it takes some rounds more until each of them has met the viewers whom one process alone met
in its warm-up."""
WARM_ROUND_S = 0.5
"""Before each load in a closed loop, and not counted: the others had the caches meanwhile, and a virtual machine's host may have taken memory
that lay idle."""
GENERATOR_BUSY_MAX = 0.9
"""A generator that is busier than this has no time to see how fast the server is."""
COMFORTABLE = 0.7
"""The share of its capacity at which a server's latency is looked at."""
SIDE_CALLS_PER_S = 20
SIDE_EVENTS = 10
"""In each call that is sent beside an overload."""
REST_S = 1.0
"""After an overload, until the service admits again as many as before it."""
SETTLED = ("recorded", "unbilled_kind")


class Services(NamedTuple):
    """The service with a small, the usual and a large catalogue; with the usual one and counters in Redis; and that with two
    workers. The last two are None where there is no Redis."""

    small: Ready
    usual: Ready
    large: Ready
    shared: Ready | None
    two: Ready | None


class Closed(NamedTuple):
    """Answers with ads a second and what one costs of the core. `refused` is the share of the answers that were looked at which
    had none: it should be nought, and then that is the same as of all answers."""

    load: Load
    per_s: float
    cpu_us: float
    refused: float


class Round(NamedTuple):
    """What one round saw of each server. `like_one_of_two` is the shared one, asked by half as many callers: as many as each of two
    workers has. What a request costs depends on how many come at once."""

    usual: Closed
    bare: Closed
    small: Closed
    large: Closed
    shared: Closed | None
    like_one_of_two: Closed | None
    two: Closed | None
    comfortable: Offered
    bare_comfortable: Offered
    twice: Offered
    thrice: Offered


class Seen(NamedTuple):
    """`matched` are the ads that fit a viewer, ascending; `alone` is the service with one request at a time."""

    rounds: list[Round]
    alone: Load
    generator_per_s: float
    matched: list[int]


class _Bench:
    def __init__(self, plan: Plan, services: Services, bodies: Sequence[Mapping[str, Any]]) -> None:
        self.plan = plan
        self.services = services
        self.bodies = bodies
        self._requests: dict[str, list[bytes]] = {}

    def requests(self, server: Ready) -> list[bytes]:
        """A server that asks for no key is sent what the service is sent."""
        key = server.key or self.services.usual.key
        if key not in self._requests:
            self._requests[key] = [post("/v1/slots", orjson.dumps(body), key) for body in self.bodies]
        return self._requests[key]

    async def closed(self, server: Ready, share: float = 1.0) -> Closed:
        """With that share of the callers."""
        pids = [server.pid, *children(server.pid)]
        ask = partial(
            load, server.port, self.requests(server), connections=round(self.plan.connections * share)
        )
        await ask(seconds=WARM_ROUND_S)
        before_s = sum(map(cpu_s, pids))
        done = await ask(seconds=self.plan.round_s)
        used_s = sum(map(cpu_s, pids)) - before_s
        refused = sum(NO_AD in body for body in done.bodies) / len(done.bodies)
        per_s = done.per_s * max(1 - refused, 1 / len(done.bodies))
        return Closed(done, per_s, used_s * 1e6 / (per_s * self.plan.round_s), refused)

    async def offered(
        self, server: Ready, times: float, can: Closed, seed: int, side: Sequence[bytes] = ()
    ) -> Offered:
        """So many times as many as it could in a closed loop, for the viewers whom that asked for: others' shelves are not
        ready, and they cost more. Raises LoadError when an event of `side` was not settled."""
        seconds = self.plan.round_s
        requests = self.requests(server)[: max(1, int(can.load.per_s * seconds))]
        done = await offer(
            server.port, requests, per_s=times * can.per_s, seconds=seconds, seed=seed, side=side
        )
        await asyncio.sleep(REST_S)
        for body in done.side.bodies:
            for result in orjson.loads(body)["results"]:
                if result["outcome"] not in SETTLED:
                    raise LoadError(f"an event beside an overload was answered {result}")
        return done

    async def side(self) -> list[bytes]:
        """Calls with events that nobody has sent before."""
        calls = max(1, round(SIDE_CALLS_PER_S * self.plan.round_s))
        usual = self.services.usual
        fresh = await tickets(usual, self.bodies, calls * SIDE_EVENTS)
        events = [{"ticket": ticket, "kind": "impression"} for ticket in fresh]
        return [
            post("/v1/events", orjson.dumps({"events": events[first : first + SIDE_EVENTS]}), usual.key)
            for first in range(0, len(events), SIDE_EVENTS)
        ]

    async def round(self, bare: Ready, nth: int) -> Round:
        small, usual, large, shared, two = self.services
        ours, theirs = await self.closed(usual), await self.closed(bare)
        return Round(
            usual=ours,
            bare=theirs,
            small=await self.closed(small),
            large=await self.closed(large),
            shared=None if shared is None else await self.closed(shared),
            like_one_of_two=None if shared is None else await self.closed(shared, 0.5),
            two=None if two is None else await self.closed(two),
            comfortable=await self.offered(usual, COMFORTABLE, ours, nth),
            bare_comfortable=await self.offered(bare, COMFORTABLE, theirs, nth),
            twice=await self.offered(usual, 2.0, ours, nth, await self.side()),
            thrice=await self.offered(usual, 3.0, ours, nth, await self.side()),
        )


async def measure(
    plan: Plan, cores: Cores, services: Services, bodies: Sequence[Mapping[str, Any]], say: Say
) -> Seen:
    bench, usual = _Bench(plan, services, bodies), services.usual
    say("warming up")
    warm = {
        service.port: await load(
            service.port, bench.requests(service), connections=plan.connections, seconds=WARM_UP_S
        )
        for service in services
        if service is not None
    }
    if services.two is not None:
        for _ in range(ROUNDS_BEFORE_TWO):
            await bench.closed(services.two)
    answers = sorted(warm[usual.port].bodies, key=len)
    typical = answers[len(answers) // 2].decode()
    matched = await _matched(usual, bodies[:EXPLAINED])
    async with AsyncExitStack() as stack:
        bare = await stack.enter_async_context(serving("bare", cores.server, Wanted(typical)))
        trivial = await stack.enter_async_context(serving("trivial", cores.server, Wanted(typical)))
        await load(bare.port, bench.requests(bare), connections=plan.connections, seconds=1.0)
        rounds = []
        for nth in range(plan.rounds):
            rounds.append(await bench.round(bare, nth))
            say(f"slots, round {nth + 1} of {plan.rounds}: {_line(rounds[-1])}")
        alone = await load(usual.port, bench.requests(usual), connections=1, seconds=plan.round_s)
        most = await load(
            trivial.port, bench.requests(bare), connections=plan.connections, seconds=plan.round_s
        )
    _warn(rounds, say)
    return Seen(rounds, alone, most.per_s, matched)


def _line(done: Round) -> str:
    usual, bare = done.usual.per_s, done.bare.per_s
    return (
        f"{usual:,.0f}/s, bare {bare:,.0f}/s; {done.twice.good_per_s / usual:.0%} of it at twice, "
        f"{done.thrice.good_per_s / usual:.0%} at three times as many as it can"
    )


def _warn(rounds: Sequence[Round], say: Say) -> None:
    busy = max(one.bare.load.busy for one in rounds)
    if busy > GENERATOR_BUSY_MAX:
        say(
            f"warning: the generator was busy {busy:.0%} of its core: the bare handler may be faster than it seems"
        )
    refused = most_refused(rounds)
    if refused:
        say(f"warning: {refused:.1%} of a closed loop's requests were refused or late, or found no ad")


def most_refused(rounds: Sequence[Round]) -> float:
    """The largest share of a closed loop's answers that had no ad."""
    loads = [
        load
        for one in rounds
        for load in (one.usual, one.small, one.large, one.shared, one.like_one_of_two, one.two)
    ]
    return max(load.refused for load in loads if load is not None)


async def tickets(service: Ready, bodies: Sequence[Mapping[str, Any]], wanted: int) -> list[str]:
    """Tickets that no event was sent for. Raises LookupError when the service places too few ads."""
    requests = [post("/v1/slots", orjson.dumps(body), service.key) for body in bodies]
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
