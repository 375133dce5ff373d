"""One seeded run: viewers, clients and a process that dies now and then, over a ledger that is not always there.

Tickets, intake, recorder, counters and leases are the real ones; the ledger is the model of ledger_model.py.
"""

import asyncio
import hashlib
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from uuid import UUID

from faulty import POISON_VIEW_MS, Away, FaultyJournal, FaultyLedger, FaultySpool, Network, Nobody
from ledger_model import Books, Budget
from virtual_time import VirtualLoop, run

from adserve.domain.ads import Campaign, Tier
from adserve.domain.events import EventKind, Settled
from adserve.domain.ids import uuid7
from adserve.domain.targeting import Targeting
from adserve.domain.tickets import Ticket
from adserve.domain.time import SECOND_MS
from adserve.limits.counters import CountersAway, MemoryCounters
from adserve.limits.hides import Hides
from adserve.limits.keeper import LeaseKeeper
from adserve.limits.leases import Hold, LeaseBook
from adserve.limits.rebuild import OVERLAP_MS, rebuild
from adserve.limits.reservations import Candidate, Reservation
from adserve.limits.rules import RETENTION_MS, Rule, campaign_key, keys_counted
from adserve.metering.errors import JournalAway, RecorderUnavailable
from adserve.metering.intake import Answer, Intake, Report
from adserve.metering.origins import Origins
from adserve.metering.pending import Pending
from adserve.metering.pseudonyms import Pseudonyms
from adserve.metering.recorder import Recorder
from adserve.metering.spooled import Spooled
from adserve.metering.tickets import Sealer, TicketKey
from adserve.metering.traffic import Traffic
from adserve.store.errors import Away as SpoolAway
from adserve.store.spools import EventLog

CAMPAIGNS = 3
PRICE_MICROS = 2_500
CAP, WINDOW_MS = 3, 60 * SECOND_MS
LASTS_S = 240.0
TTL_S = 60
TRIES_MAX = 12
SETTLES_S = 60.0
"""Long enough after the last fault for what is under way and pending to come to its end."""
UNHELD = 0.3
"""The share of decisions that place what they could not hold, as one that has a bug might."""
STEP_S = 3.0
SPOOLED = 0.5
"""The share of seeds whose process has a spool."""
SPOOLED_S, SPOOLED_AT_ONCE = 1.0, 5


def make_campaign(number: int, daily_events: int) -> Campaign:
    return Campaign(
        id=number, advertiser=1, name="c", starts_at_ms=0, ends_at_ms=None, time_zone="UTC", bid_model="cpm",
        bid_micros=1_000 * PRICE_MICROS, currency="USD", billable="impression",
        budget_daily_micros=daily_events * PRICE_MICROS, budget_total_micros=None, pacing="asap", tier=Tier.AUCTION,
        targeting=Targeting(), caps=(), separation=(),
    )  # fmt: skip  # laid out as rows


@dataclass
class Parts:
    """Which make is run; a control puts a broken twin in the place of one."""

    books: Callable[[], Books] = Books
    recorder: Callable[..., Recorder] = Recorder
    counters: Callable[..., MemoryCounters] = MemoryCounters
    network: Callable[..., Network] = Network


class Times(NamedTuple):
    """How hard they are. `killed` is the share of visits before which the process dies, at most; `latency_s` is that of the ledger."""

    viewers: int = 4
    visits: int = 60
    killed: float = 0.02
    latency_s: float = 0.02


USUAL = Times()
HARD = Times(viewers=1, visits=120, killed=0.1, latency_s=2.0)
"""Every impression is near a cap, and a death leaves something running."""


class Process:
    """What dies and is started again; only the ledger and the last checkpoint outlive it."""

    def __init__(self, scenario: "Scenario", epoch: int) -> None:
        self._scenario = scenario
        self.replica = UUID(int=epoch)
        self.counters = scenario.parts.counters(epoch, filled=False)
        self.book = LeaseBook()
        self.recorder = scenario.parts.recorder(scenario.journal, scenario.spool)
        self.keeper = LeaseKeeper(
            self.book,
            FaultyLedger(scenario.books, scenario.network),
            lambda: scenario.campaigns,
            self.replica,
        )
        self.intake = Intake(
            scenario.sealer, self.counters, self.book, self.recorder, scenario.draw, hides=Hides(),
            may_serve=lambda: True, traffic=Traffic(Origins(Pseudonyms())),
        )  # fmt: skip  # laid out as rows
        self.pending = Pending(scenario.journal, self.counters)
        steps = [self.recorder.run(), self._fill(), self._keep(), self._settle(), self._checkpoint()]
        if scenario.spool is not None:
            self.spooled = Spooled(
                scenario.spool, scenario.journal, Nobody(), self.recorder, self.counters, SPOOLED_AT_ONCE
            )
            steps.append(self._every(SPOOLED_S, self.spooled.step))
        self._tasks = [asyncio.create_task(step) for step in steps]

    async def die(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._scenario.network.orphan()

    async def _fill(self) -> None:
        await asyncio.sleep(self._scenario.chance.random())
        while not self.counters.filled:
            with suppress(SpoolAway):
                await self._fill_once()

    async def _fill_once(self) -> None:
        scenario = self._scenario
        now_ms = scenario.now_ms()
        since_ms, parts = now_ms - RETENTION_MS, None
        if scenario.checkpoint is not None:
            taken_at_ms, saved = scenario.checkpoint
            since_ms, parts = taken_at_ms - OVERLAP_MS, _each(saved)
        scenario.network.end_others()
        log = scenario.journal if scenario.spool is None else EventLog(scenario.journal, scenario.spool)
        events = log.since(since_ms)
        await rebuild(self.counters, parts, events, since_ms, lambda _: None)
        self.counters.filled = True

    async def _keep(self) -> None:
        await self._every(STEP_S, self.keeper.step)

    async def _settle(self) -> None:
        await self._every(STEP_S, self.pending.step)

    async def _checkpoint(self) -> None:
        async def save(now_ms: int) -> None:
            if self.counters.filled:
                self._scenario.checkpoint = (now_ms, list(self.counters.dump()))

        await self._every(60.0, save)

    async def _every(self, seconds: float, step: Callable[[int], Any]) -> None:
        while True:
            with suppress(Away, SpoolAway, JournalAway, RecorderUnavailable, CountersAway):
                await step(self._scenario.now_ms())
            await asyncio.sleep(seconds)


async def _each(parts: list[bytes]) -> Any:
    for part in parts:
        yield part


@dataclass
class Scenario:
    """`acknowledged` are all answers that clients got, with the ticket and kind that they were for."""

    seed: int
    parts: Parts = field(default_factory=Parts)
    times: Times = USUAL
    acknowledged: list[tuple[Ticket, str, Answer]] = field(default_factory=list)
    checkpoint: tuple[int, list[bytes]] | None = None
    deaths: int = 0

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.loop = VirtualLoop()
        self.now_ms = self.loop.now_ms
        self.digest = hashlib.sha256()
        self.books = self.parts.books()
        share = self.chance.uniform(0.01, 0.30)
        self.network = self.parts.network(self.chance, share, self.times.latency_s)
        self.journal = FaultyJournal(self.books, self.network, self._committed)
        self.spool = FaultySpool(self.chance, self.network) if self.chance.random() < SPOOLED else None
        self.sealer = Sealer([TicketKey(1, b"k" * 32, 0, None)])
        self.campaigns: dict[int, Campaign] = {}
        for number in range(1, CAMPAIGNS + 1):
            campaign = make_campaign(number, self.chance.randint(4, 40))
            self.campaigns[number] = campaign
            self.books.budgets[number] = Budget(1, "USD", campaign.budget_daily_micros, None)
        self.books.deposit(1, self.chance.randint(20, 200) * PRICE_MICROS)

    @property
    def hash(self) -> str:
        return self.digest.hexdigest()

    def draw(self) -> int:
        return self.chance.getrandbits(128)

    def run(self) -> "Scenario":
        run(self._run(), self.loop)
        return self

    async def _run(self) -> None:
        self.process = Process(self, 1)
        viewers, visits, killed, _ = self.times
        async with asyncio.TaskGroup() as group:
            for _ in range(visits):
                await asyncio.sleep(self.chance.expovariate(visits / LASTS_S))
                if self.chance.random() < self.network.share * killed / 0.15:
                    await self._restart()
                group.create_task(self._visit(self.chance.randrange(viewers)))
        self.network.share = 0.0
        await asyncio.sleep(SETTLES_S)
        await self.process.die()

    async def _restart(self) -> None:
        self.deaths += 1
        self.books.lost.add(self.process.replica)
        await self.process.die()
        await asyncio.sleep(self.chance.random())
        self.process = Process(self, self.deaths + 1)

    async def _visit(self, viewer: int) -> None:
        """A feed with ads; each is reported until that is acknowledged, some by two clients at once, some too late."""
        tickets = await self._decide(bytes([viewer]) * 16)
        async with asyncio.TaskGroup() as group:
            for ticket in tickets:
                token = self.sealer.seal(ticket)
                for _ in range(1 + (self.chance.random() < 0.2)):
                    group.create_task(self._report(ticket, token, EventKind.IMPRESSION))
                if self.chance.random() < 0.2:
                    group.create_task(self._report(ticket, token, EventKind.CLICK))

    async def _decide(self, viewer: bytes) -> list[Ticket]:
        process, now_ms = self.process, self.now_ms()
        order = self.chance.sample(sorted(self.campaigns), CAMPAIGNS)
        held = [(number, process.book.hold(number, PRICE_MICROS, now_ms)) for number in order]
        if self.chance.random() < UNHELD:
            held = [(number, hold or self._unheld(number)) for number, hold in held]
        offered = [(number, hold) for number, hold in held if hold is not None]
        expires_at_ms = now_ms + TTL_S * SECOND_MS
        ids = [uuid7(now_ms, self.draw()) for _ in range(2)]
        rules = {number: Rule(campaign_key(number), CAP, WINDOW_MS) for number, _ in offered}
        candidates = [
            Candidate(1, 0, keys_counted(number, number, 1, ()), (rules[number],)) for number, _ in offered
        ]
        reservation = Reservation(uuid7(now_ms, self.draw()), candidates, ids, expires_at_ms)
        try:
            await process.counters.recall(viewer, None, now_ms)
            grant = await process.counters.reserve(viewer, reservation, now_ms)
        except CountersAway:
            grant = None
        tickets = []
        for index, (number, hold) in enumerate(offered):
            if grant is None or index not in grant.reserved:
                process.book.give_back(hold)
                continue
            price_micros = PRICE_MICROS - self.chance.randrange(500)
            id_ = ids[grant.reserved.index(index)]
            process.book.keep(hold, id_, price_micros, expires_at_ms)
            tickets.append(self._ticket(id_, number, viewer, hold.lease, price_micros, now_ms, rules[number]))
        return tickets

    def _unheld(self, campaign: int) -> Hold | None:
        """On a lease that has no room left: what is charged to it is the ledger's to refuse."""
        leases = [number for number, lease in self.books.leases.items() if lease.campaign == campaign]
        return Hold(leases[-1], 0, PRICE_MICROS) if leases else None

    def _ticket(
        self, id_: UUID, campaign: int, viewer: bytes, lease: int, price_micros: int, now_ms: int, rule: Rule
    ) -> Ticket:
        return Ticket(
            ticket=id_, decision=id_, advertiser=1, campaign=campaign, ad=campaign, creative=1, revision=1, viewer_cap=viewer,
            viewer_log=viewer, price_micros=price_micros, currency="USD", billable="impression", lease=lease, budget_day=739_617,
            epoch=1, surface="status", country="ID", platform="android", position=1, propensity=1.0, model="prior",
            catalogue_version=1, rules_version=1, arm="exposed", issued_at_ms=now_ms,
            expires_at_ms=now_ms + TTL_S * SECOND_MS, rules=(tuple(rule),),
        )  # fmt: skip  # laid out as rows

    async def _report(self, ticket: Ticket, token: str, kind: EventKind) -> None:
        chance = self.chance
        await asyncio.sleep(chance.expovariate(1 / 10))
        view_ms = POISON_VIEW_MS if chance.random() < 0.02 else None
        again = 1 + (chance.random() < 0.3)
        for _ in range(TRIES_MAX):
            now_ms = self.now_ms()
            asked = asyncio.create_task(
                self.process.intake.take([Report(token, kind, None, view_ms)], now_ms)
            )
            try:
                (answer,) = await asked
            except (RecorderUnavailable, CountersAway):
                await asyncio.sleep(chance.expovariate(1 / 5))
                continue
            if chance.random() >= self.network.share:  # or the answer is lost on its way
                self.acknowledged.append((ticket, kind, answer))
                self._note("acknowledged", ticket.ticket, kind, answer.outcome, answer.billed)
                again -= 1
                if not again:
                    return

    def _committed(self, settled: list[Settled]) -> None:
        self._note("committed", *settled)

    def _note(self, *what: object) -> None:
        self.digest.update(repr((self.now_ms(), what)).encode())
