"""Simulated days: campaigns, traffic of a given shape, viewers who see most of what they are sent, and a ledger in memory."""

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from heapq import heappop, heappush
from typing import Any
from uuid import UUID

import msgspec
from test_keeper import make_campaign

from adserve.domain.ads import Campaign
from adserve.domain.targeting import Targeting
from adserve.domain.time import HOUR_MS, SECOND_MS, from_ms
from adserve.limits.keeper import LeaseKeeper
from adserve.limits.leases import LeaseBook
from adserve.limits.pacing import (
    EVERYWHERE,
    QUARTER_MS,
    Asked,
    Granted,
    Unspent,
    Used,
    day_begins_ms,
)

TICKET_MS = 1_800 * SECOND_MS
SHOWN_SHARE, LATE_SHARE = 0.85, 0.05
WAKES_MAX = 4
CLICK_RATE, CLICK_HOLD_FACTOR = 0.1, 2.0

SHAPES: dict[str, Callable[[float], float]] = {
    # Traffic at an hour of the local day.
    "FL": lambda hour: 1.0,
    "DI": lambda hour: 0.15 + max(0.0, 1 - abs(hour - 20) / 14) ** 2 + 0.6 * max(0.0, 1 - abs(hour - 9) / 5),
    "SP": lambda hour: 12.0 if 7 <= hour < 7.5 or 19 <= hour < 19.25 else 0.7,
    "DY": lambda hour: 1.0 if hour < 12 else max(0.02, 0.7 ** (3 * (hour - 12))),
}


@dataclass
class FakeLease:
    campaign: int
    day: date
    granted: int
    replica: UUID
    tickets_until_ms: int
    captured: int = 0
    closes_at_ms: int | None = None
    closed: bool = False


class FakeLedger:
    """Enforces budgets and pace as `take_leases` does; shared by the processes of a simulation."""

    def __init__(self, campaigns: Iterable[Campaign]) -> None:
        self.campaigns = {campaign.id: campaign for campaign in campaigns}
        self.leases: dict[int, FakeLease] = {}
        self.leased: defaultdict[tuple[int, date | None], int] = defaultdict(int)
        self.unspent: dict[tuple[int, date], dict[UUID, int]] = defaultdict(dict)
        self.requests: defaultdict[tuple[int, str], int] = defaultdict(int)
        self.takes = 0

    def room(self, asked: Asked) -> int:
        campaign = self.campaigns[asked.campaign]
        room = asked.wanted_micros
        if campaign.budget_daily_micros is not None:
            room = min(room, campaign.budget_daily_micros - self.leased[asked.campaign, asked.budget_day])
        if campaign.budget_total_micros is not None:
            room = min(room, campaign.budget_total_micros - self.leased[asked.campaign, None])
        return room

    async def take(
        self, asked: Sequence[Asked], replica: UUID, tickets_until_ms: int, at_ms: int
    ) -> list[Granted]:
        return [self._take(ask, replica, tickets_until_ms) for ask in asked]

    def _take(self, ask: Asked, replica: UUID, tickets_until_ms: int) -> Granted:
        key = (ask.campaign, ask.budget_day)
        room, expected = self.room(ask), None
        could = room >= ask.least_micros
        if ask.unspent_micros is not None:
            self.unspent[key][replica] = ask.unspent_micros
        if ask.allowed_micros is not None:
            expected = self.leased[key] - sum(self.unspent[key].values())
            room = min(room, ask.allowed_micros - expected)
        if room < ask.least_micros:
            return Granted(ask.campaign, None, 0, expected, could)
        self.takes += 1
        lease = len(self.leases) + 1
        self.leases[lease] = FakeLease(*key, room, replica, tickets_until_ms)
        self.leased[key] += room
        if ask.unspent_micros is not None:
            self.unspent[key][replica] += room
        self.leased[ask.campaign, None] += room
        return Granted(ask.campaign, lease, room, expected, False)

    async def capture(self, lease: int, micros: int) -> bool:
        row = self.leases[lease]
        if row.closed or row.captured + micros > row.granted:
            return False
        row.captured += micros
        return True

    async def forecast(self, unspent: Sequence[Unspent], replica: UUID, at_ms: int) -> list[Used]:
        for number, day, micros in unspent:
            self.unspent[number, day][replica] = micros
        return [
            Used(
                number,
                self.leased[number, day] - sum(self.unspent[number, day].values()),
                self.leased[number, None],
            )
            for number, day, _ in unspent
        ]

    async def drawable(self, replica: UUID) -> dict[int, int]:
        rows = self.leases.items()
        return {
            number: row.captured
            for number, row in rows
            if row.replica == replica and row.closes_at_ms is None
        }

    async def captured(self, replica: UUID, drawn: Sequence[int], retired: Sequence[int]) -> dict[int, int]:
        rows = [(lease, self.leases[lease]) for lease in drawn if self.leases[lease].closes_at_ms is None]
        rows += [(lease, self.leases[lease]) for lease in retired if not self.leases[lease].closed]
        return {lease: row.captured for lease, row in rows}

    async def newest_funds(self) -> int:
        return 1

    async def extend(self, until_ms: Mapping[int, int]) -> None:
        for lease, moment_ms in until_ms.items():
            self.leases[lease].tickets_until_ms = moment_ms

    async def freeze(self, closes_at_ms: Mapping[int, int], at_ms: int) -> None:
        for lease, moment_ms in closes_at_ms.items():
            known = self.leases[lease].closes_at_ms
            self.leases[lease].closes_at_ms = moment_ms if known is None else min(known, moment_ms)

    async def freeze_lost(self, *_: Any) -> None:
        """Nobody is lost but whom a test loses."""

    def lose(self, replica: UUID, at_ms: int) -> None:
        for row in self.leases.values():
            if row.replica == replica and row.closes_at_ms is None:
                row.closes_at_ms = max(at_ms, row.tickets_until_ms)
        for unspent in self.unspent.values():
            unspent.pop(replica, None)

    async def close_due(self, at_ms: int) -> None:
        for row in self.leases.values():
            if not row.closed and row.closes_at_ms is not None and row.closes_at_ms <= at_ms:
                row.closed = True
                for day in (row.day, None):
                    self.leased[row.campaign, day] -= row.granted - row.captured

    async def add_traffic(self, take: Callable[[], Mapping[tuple[int, str], int]]) -> None:
        for key, count in take().items():
            self.requests[key] += count

    async def traffic(self, since_quarter: int) -> list[tuple[int, str, int]]:
        if since_quarter < max((key[0] for key in self.requests), default=0) - 96:
            return [(*key, count) for key, count in self.requests.items()]
        quarters = range(since_quarter, since_quarter + 3)
        return [
            (quarter, country, self.requests[quarter, country])
            for quarter in quarters
            for country in (*SHAPES, EVERYWHERE)
            if (quarter, country) in self.requests
        ]

    async def forget_traffic(self, before_quarter: int, at_ms: int) -> None:
        """A test's days are few."""


@dataclass
class Run:
    """A simulated day of all campaigns, in one time zone."""

    campaigns: Sequence[Campaign]
    begins_ms: int
    ends_ms: int
    ledger: Any
    step_ms: int = 60 * SECOND_MS
    processes: int = 1
    requests_a_day: int = 100_000
    demand: float = 4.0  # of each campaign's budget
    seed: int = 1
    at_hour: Mapping[int, Callable[["Run"], None]] = field(default_factory=dict)
    spent: dict[int, list[int]] = field(default_factory=dict)  # by the end of each hour
    came: dict[str, list[int]] = field(default_factory=dict)
    charged: defaultdict[int, int] = field(default_factory=lambda: defaultdict(int))
    refused: int = 0

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.replicas: list[Any] = []
        for number in range(1, self.processes + 1):
            book = LeaseBook()
            running: dict[int, Campaign] = {campaign.id: campaign for campaign in self.campaigns}
            keeper = LeaseKeeper(book, self.ledger, lambda running=running: running, UUID(int=number))
            self.replicas.append((book, keeper))
        self.events: list[tuple[int, int, int, UUID, int, int]] = []
        self.tickets = 0
        self.hours = (self.ends_ms - self.begins_ms) // HOUR_MS
        self.zone = self.campaigns[0].zone

    async def day(self) -> "Run":
        count = dict.fromkeys(SHAPES, 0)
        for country in SHAPES:
            self.came[country] = []
        mean = {country: sum(shape(hour / 4) for hour in range(96)) / 96 for country, shape in SHAPES.items()}
        steps_a_day = 24 * HOUR_MS / self.step_ms
        for now_ms in range(self.begins_ms, self.ends_ms, self.step_ms):
            since_ms = now_ms - self.begins_ms
            if since_ms % HOUR_MS == 0 and since_ms:
                self._mark(count)
                change = self.at_hour.get(since_ms // HOUR_MS)
                if change is not None:
                    change(self)
            for _, keeper in self.replicas:
                await keeper.step(now_ms)
            hour = local_hour(now_ms, self.zone)
            for country, shape in SHAPES.items():
                expected = self.requests_a_day * shape(hour) / mean[country] / steps_a_day
                requests = max(0, round(self.chance.gauss(expected, expected**0.5)))
                count[country] += requests
                await self._ask(country, requests, now_ms)
            await self._deliver(now_ms + self.step_ms)
        self._mark(count)
        await self._deliver(self.ends_ms + 2 * TICKET_MS)
        return self

    def _mark(self, count: Mapping[str, int]) -> None:
        for country, requests in count.items():
            self.came[country].append(requests)
        for campaign in self.campaigns:
            self.spent.setdefault(campaign.id, []).append(self.charged[campaign.id])

    async def _ask(self, country: str, requests: int, now_ms: int) -> None:
        """Every campaign gets its part of the requests, whose viewers come to a process by chance."""
        for book, keeper in self.replicas:
            for _ in range(self._whole(requests / len(self.replicas))):
                book.traffic.note(country)
            wanting: list[tuple[Campaign, int]] = []
            for campaign in self.campaigns:
                if campaign.targeting.countries == (country,):
                    chances = self.demand * events_a_day(campaign) * requests / self.requests_a_day
                    wanting.append((campaign, self._whole(chances / len(self.replicas))))
            for _ in range(WAKES_MAX):
                keeper.wake.clear()
                wanting = [
                    (campaign, self._drawn(book, campaign, most, now_ms)) for campaign, most in wanting
                ]
                if not keeper.wake.is_set():
                    break
                await keeper.step(now_ms)

    def _drawn(self, book: LeaseBook, campaign: Campaign, most: int, now_ms: int) -> int:
        """How many could not be drawn."""
        while most and self._draw(book, campaign, now_ms):
            most -= 1
        return most

    def _whole(self, amount: float) -> int:
        return int(amount) + (self.chance.random() < amount % 1)

    def _draw(self, book: LeaseBook, campaign: Campaign, now_ms: int) -> bool:
        bid = campaign.event_bid_micros
        by_click = campaign.billable == "click"
        kept_share = CLICK_RATE * CLICK_HOLD_FACTOR if by_click else 1.0
        hold = book.hold(campaign.id, int(bid * kept_share), now_ms)
        if hold is None:
            return False
        price = int(bid * self.chance.uniform(0.6, 1.0))
        self.tickets += 1
        ticket = UUID(int=now_ms << 80 | self.tickets)  # with its moment, as a uuid7
        book.keep(hold, ticket, int(price * kept_share), now_ms + TICKET_MS)
        happens = self.chance.random()
        if by_click:
            happens /= CLICK_RATE
        if happens < SHOWN_SHARE:
            late = happens < LATE_SHARE
            delay_s = self.chance.uniform(60, 1_700) if late else self.chance.expovariate(1 / 15)
            at_ms = now_ms + min(TICKET_MS, int(delay_s * SECOND_MS))
            heappush(self.events, (at_ms, self.tickets, campaign.id, ticket, hold.lease, price))
        return True

    async def _deliver(self, until_ms: int) -> None:
        """Events reach a process by chance, too."""
        while self.events and self.events[0][0] < until_ms:
            _, _, campaign, ticket, lease, price = heappop(self.events)
            if not await self.ledger.capture(lease, price):
                self.refused += 1
                continue
            self.charged[campaign] += price
            book = self.chance.choice(self.replicas)[0]
            book.captured(ticket, lease, price)

    def errors(self, only: Callable[[Campaign], bool] = lambda _: True) -> dict[int, float]:
        """Each campaign's greatest distance from budget x true curve at an hour, in units of what is allowed."""
        found = {}
        for campaign in filter(only, self.campaigns):
            budget = campaign.budget_daily_micros or 0
            allowed = max(0.02 * budget, 3 * campaign.event_bid_micros)
            came = self.came[campaign.targeting.countries[0]]
            found[campaign.id] = max(
                abs(spent - budget * passed / came[-1]) / allowed
                for spent, passed in zip(self.spent[campaign.id], came, strict=True)
            )
        return found

    def ends(self, only: Callable[[Campaign], bool] = lambda _: True) -> list[float]:
        """What of each budget was charged in the end."""
        return [
            self.charged[campaign.id] / (campaign.budget_daily_micros or 1)
            for campaign in filter(only, self.campaigns)
        ]


def local_hour(now_ms: int, zone: Any) -> float:
    local = from_ms(now_ms).astimezone(zone)
    return local.hour + local.minute / 60


def events_a_day(campaign: Campaign) -> float:
    """How many impressions spend the budget at its prices."""
    impressions = (campaign.budget_daily_micros or 0) / (0.8 * campaign.event_bid_micros * SHOWN_SHARE)
    return impressions / CLICK_RATE if campaign.billable == "click" else impressions


def make_campaigns(
    count: int = 100, zone: str = "UTC", pacing: str = "even", seed: int = 1
) -> list[Campaign]:
    """A fifth of them pay by the click; a quarter for each shape."""
    chance = random.Random(seed)
    countries = list(SHAPES)
    campaigns = []
    for number in range(1, count + 1):
        by_click = number % 5 == 0
        bid = 200_000 if by_click else 2_500
        events = chance.randint(60, 150) if by_click else chance.randint(20, 800)
        campaigns.append(
            msgspec.structs.replace(
                make_campaign(number, 1, bid * events, zone, pacing),
                bid_model="cpc" if by_click else "cpm",
                bid_micros=bid if by_click else bid * 1_000,
                billable="click" if by_click else "impression",
                targeting=Targeting(countries=(countries[number % 4],)),
            )
        )
    return campaigns


def make_run(
    campaigns: Sequence[Campaign],
    day: date = date(2026, 6, 10),
    *,
    learnt_days: int = 0,
    ledger: FakeLedger | None = None,
    **told: Any,
) -> Run:
    """`learnt_days` of such traffic were seen before, each with its own chance and size."""
    zone = campaigns[0].zone
    begins_ms, ends_ms = day_begins_ms(day, zone), day_begins_ms(date.fromordinal(day.toordinal() + 1), zone)
    run = Run(campaigns, begins_ms, ends_ms, ledger or FakeLedger(campaigns), **told)
    chance = random.Random(7)
    for back in range(1, learnt_days + 1):
        before = date.fromordinal(day.toordinal() - back)
        first, last = (day_begins_ms(d, zone) for d in (before, date.fromordinal(before.toordinal() + 1)))
        learn(run.ledger, first, last, zone, run.requests_a_day * chance.uniform(0.8, 1.2), chance)
    return run


def learn(
    ledger: FakeLedger, first_ms: int, last_ms: int, zone: Any, requests_a_day: float, chance: random.Random
) -> None:
    for country, shape in SHAPES.items():
        mean = sum(shape(quarter / 4) for quarter in range(96))
        for quarter in range(first_ms // QUARTER_MS, last_ms // QUARTER_MS):
            expected = requests_a_day * shape(local_hour(quarter * QUARTER_MS, zone)) / mean
            count = max(0, round(chance.gauss(expected, expected**0.5)))
            ledger.requests[quarter, country] += count
            ledger.requests[quarter, EVERYWHERE] += count
