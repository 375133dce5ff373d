"""The ledger's rules in memory: what settle() and the functions for leases do, one call after the other."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import NamedTuple
from uuid import UUID

from adserve.domain.events import Event, Outcome, Settled
from adserve.domain.money import Money
from adserve.limits.pacing import Asked, Granted

Key = tuple[UUID, str]


@dataclass
class Lease:
    campaign: int
    advertiser: int
    currency: str
    day: date
    granted_micros: int
    replica: UUID
    opened_at_ms: int
    tickets_until_ms: int
    captured_micros: int = 0
    frozen: bool = False
    closes_at_ms: int = 0
    closed: bool = False


class Stored(NamedTuple):
    event: Event
    outcome: Outcome
    billed_micros: int


class Budget(NamedTuple):
    advertiser: int
    currency: str
    daily_micros: int | None
    total_micros: int | None


@dataclass
class Books:
    """Everything that has committed."""

    budgets: dict[int, Budget] = field(default_factory=dict)
    available_micros: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    leases: dict[int, Lease] = field(default_factory=dict)
    events: dict[Key, Stored] = field(default_factory=dict)
    pending: dict[Key, Event] = field(default_factory=dict)
    transactions: list[dict[str, int]] = field(default_factory=list)
    lost: set[UUID] = field(default_factory=set)
    """Replicas that will not be heard of any more."""

    def settle(self, events: Sequence[Event]) -> list[Settled]:
        room = {number: self._room(number) for number in {event.ticket.lease for event in events}}
        fresh = self._fresh(events)
        answers: list[Settled] = []
        drawn: dict[int, int] = defaultdict(int)
        for nth, event in enumerate(events):
            key = (event.ticket.ticket, event.kind)
            if nth not in fresh:
                answers.append(self._duplicate(key))
                continue
            outcome = event.outcome
            if outcome is Outcome.RECORDED:
                drawn[event.ticket.lease] += event.ticket.price_micros
                fits = self._matches(event) and drawn[event.ticket.lease] <= room[event.ticket.lease]
                outcome = Outcome.RECORDED if fits else Outcome.OVER_BUDGET
            answers.append(self._store(key, event, outcome))
        return answers

    def _fresh(self, events: Sequence[Event]) -> set[int]:
        """The first of each ticket and kind that is not there yet."""
        first: dict[Key, int] = {}
        for nth, event in enumerate(events):
            key = (event.ticket.ticket, event.kind)
            if key not in self.events and key not in self.pending:
                first.setdefault(key, nth)
        return set(first.values())

    def _room(self, number: int) -> int:
        lease = self.leases.get(number)
        return 0 if lease is None else lease.granted_micros - lease.captured_micros

    def _matches(self, event: Event) -> bool:
        ticket, lease = event.ticket, self.leases.get(event.ticket.lease)
        return (
            lease is not None
            and not lease.closed
            and (lease.campaign, lease.advertiser, lease.currency)
            == (ticket.campaign, ticket.advertiser, ticket.currency)
        )

    def _duplicate(self, key: Key) -> Settled:
        waits = key not in self.events
        first = self.pending[key] if waits else self.events[key].event
        return Settled(first.event, Outcome.DUPLICATE, None, waits)

    def _store(self, key: Key, event: Event, outcome: Outcome) -> Settled:
        ticket = event.ticket
        billed_micros = ticket.price_micros if outcome is Outcome.RECORDED else 0
        self.events[key] = Stored(event, outcome, billed_micros)
        if not billed_micros:
            return Settled(event.event, outcome, None)
        self.leases[ticket.lease].captured_micros += billed_micros
        self._post({f"held {ticket.advertiser}": -billed_micros, "revenue": billed_micros})
        return Settled(event.event, outcome, Money(billed_micros, ticket.currency))

    def keep_pending(self, event: Event) -> Settled:
        key = (event.ticket.ticket, event.kind)
        if key in self.events or key in self.pending:
            return self._duplicate(key)
        self.pending[key] = event
        return Settled(event.event, Outcome.ACCEPTED, None)

    def deposit(self, advertiser: int, micros: int) -> None:
        self.available_micros[advertiser] += micros
        self._post({"cash": -micros, f"available {advertiser}": micros})

    def take(self, asked: Asked, replica: UUID, tickets_until_ms: int, at_ms: int) -> Granted:
        """Of one campaign; several come in the order of their ids."""
        budget = self.budgets[asked.campaign]
        micros = min(asked.wanted_micros, self.available_micros[budget.advertiser])
        for most, day in ((budget.daily_micros, asked.budget_day), (budget.total_micros, None)):
            if most is not None:
                micros = min(micros, most - self.leased_micros(asked.campaign, day))
        if micros < asked.least_micros:
            return Granted(asked.campaign, None, 0, None, False)
        number = len(self.leases) + 1
        self.leases[number] = Lease(
            asked.campaign, budget.advertiser, budget.currency, asked.budget_day, micros, replica, at_ms, tickets_until_ms
        )  # fmt: skip  # laid out as rows
        self._move(budget.advertiser, micros)
        return Granted(asked.campaign, number, micros, None, False)

    def leased_micros(self, campaign: int, day: date | None) -> int:
        return sum(
            lease.captured_micros if lease.closed else lease.granted_micros
            for lease in self.leases.values()
            if lease.campaign == campaign and day in (None, lease.day)
        )

    def freeze(self, closes_at_ms: Mapping[int, int]) -> None:
        for number, moment_ms in closes_at_ms.items():
            lease = self.leases[number]
            if not lease.frozen or (not lease.closed and moment_ms < lease.closes_at_ms):
                lease.frozen, lease.closes_at_ms = True, moment_ms

    def freeze_lost(self, heard_since_ms: int, at_ms: int) -> None:
        for lease in self.leases.values():
            if not lease.frozen and lease.replica in self.lost and lease.opened_at_ms < heard_since_ms:
                lease.frozen, lease.closes_at_ms = True, max(at_ms, lease.tickets_until_ms)

    def close_due(self, at_ms: int) -> None:
        waited_for = {event.ticket.lease for event in self.pending.values()}
        for number, lease in self.leases.items():
            if lease.frozen and not lease.closed and lease.closes_at_ms <= at_ms and number not in waited_for:
                lease.closed = True
                rest = lease.granted_micros - lease.captured_micros
                if rest:
                    self._move(lease.advertiser, -rest)

    def _move(self, advertiser: int, micros: int) -> None:
        self.available_micros[advertiser] -= micros
        self._post({f"available {advertiser}": -micros, f"held {advertiser}": micros})

    def _post(self, postings: dict[str, int]) -> None:
        self.transactions.append(postings)
