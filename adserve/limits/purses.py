"""A campaign's purse: its leases, the arithmetic of each, and how much of what is promised will probably be charged."""

from math import ceil
from typing import NamedTuple

UNPACED_MICROS = 1 << 60

EVENTS_REMEMBERED = 2_000
EVENTS_OF_PRIOR = 20
PRIOR_YOUNG, PRIOR_OLD = 0.8, 0.1

OLD_CLICK_SHARE = 0.1
"""So much of what is kept for a click stays kept once its ticket is old: few clicks come so late."""


class Lease(NamedTuple):
    """A granted part of a campaign's budget of one day (an ordinal), which may be drawn on until `ends_at_ms`.

    `by_click`: what is kept under a ticket is what its click is expected to cost, not what it will.
    """

    id: int
    campaign: int
    budget_day: int
    granted_micros: int
    ends_at_ms: int
    by_click: bool = False


class Account:
    """One lease's arithmetic: `free_micros` is neither held, nor kept under a ticket, nor spent by us (`spent_micros`) or,
    as far as the ledger has told, by others (`others_micros`). These charge tickets of ours, which stay kept here until
    they expire: `covered_micros` are therefore not subtracted twice. No event of a ticket counts after `last_back_at_ms`, and of a
    ticket that was released none after `released_until_ms`."""

    __slots__ = (
        "covered_micros",
        "dropped",
        "ends_at_ms",
        "expired_micros",
        "free_micros",
        "heard_micros",
        "held_micros",
        "last_back_at_ms",
        "lease",
        "old_micros",
        "others_micros",
        "purse",
        "released_until_ms",
        "retired",
        "spent_micros",
        "tickets_until_ms",
        "young_micros",
    )

    def __init__(self, lease: Lease, purse: "Purse") -> None:
        self.lease = lease
        self.purse = purse
        self.ends_at_ms = lease.ends_at_ms
        self.free_micros = lease.granted_micros
        self.held_micros = self.young_micros = self.old_micros = self.heard_micros = 0
        self.spent_micros = self.others_micros = self.covered_micros = self.expired_micros = 0
        self.last_back_at_ms = self.released_until_ms = self.tickets_until_ms = 0
        self.retired = self.dropped = False

    def expected_micros(self, young_rate: float, old_rate: float) -> int:
        old = max(0, self.old_micros - self.covered_micros)
        young = self.young_micros - max(0, self.covered_micros - self.old_micros)
        pending = round(young * young_rate + old * old_rate)
        return self.spent_micros + self.others_micros + self.held_micros + pending

    def settled(self) -> bool:
        """Whether each ticket that was not dropped has been charged. The ledger's sum can say so of tickets that others charged,
        as none is charged more than once and none less than what is kept: but for clicks, and unless it holds dropped ones."""
        kept_micros = self.young_micros + self.old_micros
        if not kept_micros or self.dropped or self.lease.by_click:
            return not kept_micros
        return self.heard_micros == self.spent_micros + kept_micros

    def closes_at_ms(self) -> int:
        """When no event can be charged to it any more, if nothing more is drawn."""
        return self.released_until_ms if self.settled() else self.last_back_at_ms

    def hear(self, captured_micros: int) -> None:
        """What the ledger has captured of the lease in all."""
        self.heard_micros = captured_micros
        others_micros = max(0, captured_micros - self.spent_micros)
        more = others_micros - self.others_micros
        covered = 0
        if not self.lease.by_click:
            covered = self.covered_micros + more - (self.expired_micros if more > 0 else 0)
            covered = max(0, min(covered, self.young_micros + self.old_micros))
        self.free_micros += covered - self.covered_micros - more
        self.others_micros, self.covered_micros, self.expired_micros = others_micros, covered, 0

    def kept_when_old(self, micros: int) -> int:
        """What stays kept of a kept price."""
        return ceil(micros * OLD_CLICK_SHARE) if self.lease.by_click else micros

    def drop(self, micros: int, back_at_ms: int) -> None:
        """A kept price comes back, unless it is one of those that others charged."""
        self.dropped = True
        covered = min(self.covered_micros, micros)
        self.covered_micros -= covered
        self.expired_micros += micros - covered
        self.free_micros += micros - covered
        self.released_until_ms = max(self.released_until_ms, back_at_ms)


class Purse:
    """A campaign's leases: those drawn on, and those that only capture until their last ticket is over. `paced_micros` is
    what the pace lets decisions hold until the keeper's next step. The shares of kept prices that were charged soon and
    late are learnt as they come."""

    __slots__ = (
        "campaign",
        "closed_micros",
        "drawn_micros",
        "lacks_pace",
        "old_got",
        "old_of",
        "open",
        "paced_micros",
        "retired",
        "short",
        "touched",
        "young_got",
        "young_of",
    )

    def __init__(self, campaign: int) -> None:
        self.campaign = campaign
        self.open: list[Account] = []
        self.retired: list[Account] = []
        self.paced_micros = UNPACED_MICROS
        self.closed_micros: dict[int, int] = {}
        self.drawn_micros = 0
        self.touched = self.short = self.lacks_pace = False
        self.young_got = self.young_of = self.old_got = self.old_of = 0

    def rates(self, event_micros: int) -> tuple[float, float]:
        """How much of what is kept will be charged: of tickets younger than YOUNG_MS, and of older ones."""
        prior = EVENTS_OF_PRIOR * event_micros
        if self.young_of > EVENTS_REMEMBERED * event_micros:
            self.young_got, self.young_of = self.young_got // 2, self.young_of // 2
        if self.old_of > EVENTS_REMEMBERED * event_micros:
            self.old_got, self.old_of = self.old_got // 2, self.old_of // 2
        soon = (self.young_got + PRIOR_YOUNG * prior) / (self.young_of + prior)
        late = (self.old_got + PRIOR_OLD * prior) / (self.old_of + prior)
        return min(1.0, soon + max(0.0, 1 - soon) * late), min(1.0, late)

    def free_micros(self, now_ms: int) -> int:
        """What decisions may still hold, if the pace allows."""
        return sum(account.free_micros for account in self.open if now_ms < account.ends_at_ms)

    def spending(self, budget_day: int, event_micros: int) -> tuple[int, int]:
        """What of a day's leases is spent, held or expected to be charged; and what of those not yet forgotten is not."""
        young, old = self.rates(event_micros)
        spending = unspent = 0
        for account in (*self.open, *self.retired):
            if account.lease.budget_day == budget_day:
                expected = account.expected_micros(young, old)
                spending += expected
                unspent += account.lease.granted_micros - expected
        return spending + self.closed_micros.get(budget_day, 0), max(0, unspent)
