"""What may still be spent, in memory: the budget leases of this process and what decisions hold of them.

A hold is for the length of a decision; what was awarded stays held under its ticket until it is charged, released or
expired. Nothing here awaits or reads a clock. The ledger has the last word on every charge; the book only keeps
decisions from promising what is not there.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple
from uuid import UUID

from msgspec import Struct

from adserve.domain.time import SECOND_MS

GRACE_MS = 60 * SECOND_MS
"""How long after its ticket a held price comes back: an event received in time may still be on its way."""

_NEVER_MS = 1 << 62


class Lease(NamedTuple):
    """A granted part of a campaign's budget of one day (an ordinal), which ends at `ends_at_ms` in its zone."""

    id: int
    campaign: int
    budget_day: int
    granted_micros: int
    ends_at_ms: int


class Hold(Struct, frozen=True, gc=False):
    lease: int
    budget_day: int
    micros: int


class _Kept(Struct, frozen=True, gc=False):
    micros: int
    back_at_ms: int


class _Account:
    """One lease's arithmetic: `free_micros` is neither held, nor kept under a ticket, nor spent by us (`spent_micros`) or,
    as far as the ledger has told, by others (`others_micros`)."""

    __slots__ = (
        "ends_at_ms",
        "free_micros",
        "frozen",
        "held_micros",
        "kept",
        "last_back_at_ms",
        "lease",
        "next_back_at_ms",
        "others_micros",
        "spent_micros",
    )

    def __init__(self, lease: Lease) -> None:
        self.lease = lease
        self.ends_at_ms = lease.ends_at_ms
        self.free_micros = lease.granted_micros
        self.held_micros = 0
        self.spent_micros = 0
        self.others_micros = 0
        self.kept: dict[UUID, _Kept] = {}
        self.next_back_at_ms = _NEVER_MS
        self.last_back_at_ms = 0
        self.frozen = False


class LeaseBook:
    """`on_short` is called when a campaign begins to lack room, and not again before it has a new lease."""

    def __init__(self, on_short: Callable[[], None] = lambda: None) -> None:
        self.on_short = on_short
        self._accounts: dict[int, _Account] = {}
        self._by_campaign: dict[int, list[_Account]] = {}
        self._by_ticket: dict[UUID, _Account] = {}
        self._short: set[int] = set()
        self._drawn_micros: dict[int, int] = {}

    def hold(self, campaign: int, micros: int, now_ms: int) -> Hold | None:
        """Sets `micros` aside for one decision, or answers None when no lease of today has that much."""
        for account in self._by_campaign.get(campaign, ()):
            if account.free_micros >= micros and now_ms < account.ends_at_ms and not account.frozen:
                account.free_micros -= micros
                account.held_micros += micros
                lease = account.lease
                return Hold(lease.id, lease.budget_day, micros)
        if campaign not in self._short:
            self._short.add(campaign)
            self.on_short()
        return None

    def give_back(self, hold: Hold) -> None:
        account = self._accounts.get(hold.lease)
        if account is not None:
            account.held_micros -= hold.micros
            account.free_micros += hold.micros

    def keep(self, hold: Hold, ticket: UUID, micros: int, expires_at_ms: int) -> None:
        """Leaves `micros` of a hold under the ticket it was awarded to; the rest goes back."""
        account = self._accounts.get(hold.lease)
        if account is None:
            return
        back_at_ms = expires_at_ms + GRACE_MS
        account.held_micros -= hold.micros
        account.free_micros += hold.micros - micros
        account.kept[ticket] = _Kept(micros, back_at_ms)
        account.next_back_at_ms = min(account.next_back_at_ms, back_at_ms)
        account.last_back_at_ms = max(account.last_back_at_ms, back_at_ms)
        self._by_ticket[ticket] = account
        campaign = account.lease.campaign
        self._drawn_micros[campaign] = self._drawn_micros.get(campaign, 0) + micros

    def captured(self, ticket: UUID, lease: int, micros: int) -> None:
        """The ledger has charged the ticket to its lease."""
        self.release(ticket)
        account = self._accounts.get(lease)
        if account is not None:
            account.spent_micros += micros
            account.free_micros -= micros

    def release(self, ticket: UUID) -> None:
        """What is held under the ticket comes back, if anything is."""
        account = self._by_ticket.pop(ticket, None)
        if account is not None:
            account.free_micros += account.kept.pop(ticket).micros

    def expire(self, now_ms: int) -> None:
        """What is held under tickets that expired more than the grace ago comes back."""
        for account in self._accounts.values():
            if account.next_back_at_ms <= now_ms:
                for ticket in [ticket for ticket, kept in account.kept.items() if kept.back_at_ms <= now_ms]:
                    self.release(ticket)
                account.next_back_at_ms = min(
                    (kept.back_at_ms for kept in account.kept.values()), default=_NEVER_MS
                )

    def add(self, lease: Lease) -> None:
        account = _Account(lease)
        self._accounts[lease.id] = account
        self._by_campaign.setdefault(lease.campaign, []).append(account)
        self._short.discard(lease.campaign)

    def sync(self, captured_micros: Mapping[int, int]) -> set[int]:
        """Takes what the ledger says of all leases that are open for this process to draw on.

        What other processes captured is spent here too; a capture of ours whose word is still on its way looks like one
        of theirs until the next time. A lease that the ledger does not name has been taken from us.
        Answers the leases that are named and not known here: their grant never arrived.
        """
        self.forget([lease for lease in self._accounts if lease not in captured_micros])
        for lease, account in self._accounts.items():
            others_micros = max(0, captured_micros[lease] - account.spent_micros)
            account.free_micros += account.others_micros - others_micros
            account.others_micros = others_micros
        return captured_micros.keys() - self._accounts.keys()

    def retire(self, least_micros: Mapping[int, int], now_ms: int) -> dict[int, int]:
        """Ends the drawing on leases of another day, of campaigns that are not named, and on those that have less than
        `least_micros` of their campaign left while it has a newer one.

        Answers each such lease that no decision holds any more, with the moment when its last ticket is over. It is
        answered again until it is forgotten.
        """
        for campaign, accounts in self._by_campaign.items():
            least = least_micros.get(campaign)
            for account in accounts:
                used_up = least is None or (
                    account is not accounts[-1] and account.free_micros + account.held_micros < least
                )
                account.frozen = account.frozen or used_up or now_ms >= account.ends_at_ms
        return {
            lease: max(now_ms, account.last_back_at_ms)
            for lease, account in self._accounts.items()
            if account.frozen and not account.held_micros
        }

    def forget(self, leases: Iterable[int]) -> None:
        for lease in leases:
            account = self._accounts.pop(lease)
            for ticket in account.kept:
                del self._by_ticket[ticket]
            siblings = self._by_campaign[account.lease.campaign]
            siblings.remove(account)
            if not siblings:
                del self._by_campaign[account.lease.campaign]

    def remaining_micros(self, campaign: int, now_ms: int) -> int:
        """What decisions may still hold."""
        accounts = self._by_campaign.get(campaign, ())
        return sum(
            account.free_micros for account in accounts if not account.frozen and now_ms < account.ends_at_ms
        )

    def drawn_micros(self, campaign: int) -> int:
        """What was ever kept under tickets of a campaign: its difference is the rate of drawing."""
        return self._drawn_micros.get(campaign, 0)
