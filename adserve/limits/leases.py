"""What may still be spent, in memory: the budget leases of this process and what decisions hold of them.

A hold is for the length of a decision; what was awarded stays held under its ticket until it is charged, released or
expired. Nothing here awaits or reads a clock. The ledger has the last word on every charge; the book only keeps
decisions from promising what is not there.
"""

from collections.abc import Callable, Iterable, Mapping
from heapq import heappop, heappush
from uuid import UUID

from msgspec import Struct

from adserve.domain.time import SECOND_MS
from adserve.limits.kept import KeptTickets
from adserve.limits.pacing import Traffic
from adserve.limits.purses import Account, Lease, Purse
from adserve.limits.rules import GRACE_MS

YOUNG_MS = GRACE_MS
"""A ticket that was not charged for so long probably never will be. No ticket is over before that."""

ENDED_AT_ONCE_MAX = 1_000


class Hold(Struct, frozen=True, gc=False):
    lease: int
    budget_day: int
    micros: int


class LeaseBook:
    """`on_short` is called when a campaign begins to lack room, and not again before it has a new lease. `traffic` counts
    the slot requests that the drawing is paced along."""

    def __init__(self, on_short: Callable[[], None] = lambda: None) -> None:
        self.on_short = on_short
        self.traffic = Traffic()
        self.purses: dict[int, Purse] = {}
        self._accounts: dict[int, Account] = {}
        self._young = KeptTickets()
        self._old = KeptTickets()
        self._touched: list[Purse] = []
        self._fresh: set[int] = set()  # these, and those below, are moments of tickets
        self._youths: list[tuple[int, list[int]]] = []
        self._due: dict[int, list[int]] = {}
        self._due_s: list[int] = []
        self._ends: list[tuple[int, int]] = []
        self._leaving: dict[int, Account] = {}
        self._closing: list[tuple[int, int]] = []

    def hold(self, campaign: int, micros: int, now_ms: int) -> Hold | None:
        """Sets `micros` aside for one decision, or answers None when pace or leases of today have not that much."""
        purse = self.purses.get(campaign)
        if purse is None:
            purse = self.purse(campaign)
        if not purse.touched:
            purse.touched = True
            self._touched.append(purse)
        purse.lacks_pace = purse.paced_micros < micros
        if purse.lacks_pace:
            return None
        for account in purse.open:
            if account.free_micros >= micros and now_ms < account.ends_at_ms:
                account.free_micros -= micros
                account.held_micros += micros
                purse.paced_micros -= micros
                lease = account.lease
                return Hold(lease.id, lease.budget_day, micros)
        if not purse.short:
            purse.short = True
            self.on_short()
        return None

    def paced_out(self, campaign: int) -> bool:
        """After a hold that failed: whether the pace was why, and not the budget."""
        purse = self.purses.get(campaign)
        return purse is not None and purse.lacks_pace

    def give_back(self, hold: Hold) -> None:
        account = self._accounts.get(hold.lease)
        if account is not None:
            account.held_micros -= hold.micros
            account.free_micros += hold.micros
            account.purse.paced_micros += hold.micros

    def keep(self, hold: Hold, ticket: UUID, micros: int, expires_at_ms: int) -> None:
        """Leaves `micros` of a hold under the ticket it was awarded to; the rest goes back."""
        account = self._accounts.get(hold.lease)
        if account is None:
            return
        back_at_ms = expires_at_ms + GRACE_MS
        rest = hold.micros - micros
        account.held_micros -= hold.micros
        account.free_micros += rest
        account.young_micros += micros
        account.last_back_at_ms = max(account.last_back_at_ms, back_at_ms)
        purse = account.purse
        purse.paced_micros += rest
        purse.drawn_micros += micros
        self._fresh.add(self._young.add(ticket, hold.lease, micros, back_at_ms))

    def captured(self, ticket: UUID, lease: int, micros: int) -> None:
        """The ledger has charged the ticket to its lease."""
        account = self._accounts.get(lease)
        if account is None:
            return
        account.spent_micros += micros
        account.free_micros -= micros
        purse = account.purse
        if (kept := self._young.take(ticket)) is not None:
            _, kept_micros, _ = kept
            account.young_micros -= kept_micros
            purse.young_of += kept_micros
            purse.young_got += micros
        elif (kept := self._old.take(ticket)) is not None:
            kept_micros = account.kept_when_old(kept[1])
            account.old_micros -= kept_micros
            purse.old_of += kept_micros
            purse.old_got += micros
        else:
            return
        account.free_micros += kept_micros
        if account.retired:
            self._reconsider(account)

    def release(self, ticket: UUID) -> None:
        """What is held under the ticket comes back, if anything is."""
        if (kept := self._young.take(ticket)) is not None:
            lease, micros, back_at_ms = kept
            account = self._accounts.get(lease)
            if account is not None:
                account.young_micros -= micros
                account.drop(micros, back_at_ms)
        elif (kept := self._old.take(ticket)) is not None:
            self._drop_old(*kept)

    def _drop_old(self, lease: int, micros: int, back_at_ms: int) -> None:
        account = self._accounts.get(lease)
        if account is not None:
            micros = account.kept_when_old(micros)
            account.old_micros -= micros
            account.purse.old_of += micros
            account.drop(micros, back_at_ms)

    def expire(self, now_ms: int) -> None:
        """What is held under tickets that expired more than the grace ago comes back, within a second."""
        if self._fresh:
            self._youths.append((now_ms + YOUNG_MS, list(self._fresh)))
            self._fresh = set()
        grown = 0
        for until_ms, youths in self._youths:
            if until_ms > now_ms:
                break
            grown += 1
            self._age(youths)
        del self._youths[:grown]
        while self._due_s and self._due_s[0] * SECOND_MS <= now_ms:
            second = heappop(self._due_s)
            for moment in self._due.pop(second):
                for kept in self._old.take_back(moment, second * SECOND_MS):
                    self._drop_old(*kept)

    def _age(self, youths: list[int]) -> None:
        accounts, due = self._accounts, self._due
        for moment in youths:
            for lease, micros, back_at_ms in self._young.move(moment, self._old):
                second = -(-back_at_ms // SECOND_MS)
                if second not in due:
                    due[second] = [moment]
                    heappush(self._due_s, second)
                elif due[second][-1] != moment:
                    due[second].append(moment)
                account = accounts.get(lease)
                if account is not None:
                    old_micros = account.kept_when_old(micros)
                    account.young_micros -= micros
                    account.purse.young_of += micros
                    account.free_micros += micros - old_micros
                    account.old_micros += old_micros

    def purse(self, campaign: int) -> Purse:
        purse = self.purses.get(campaign)
        if purse is None:
            purse = self.purses[campaign] = Purse(campaign)
        return purse

    def add(self, lease: Lease) -> Account:
        purse = self.purse(lease.campaign)
        account = Account(lease, purse)
        self._accounts[lease.id] = account
        purse.open.append(account)
        purse.short = False
        heappush(self._ends, (lease.ends_at_ms, lease.id))
        return account

    def touched(self) -> list[Purse]:
        """The campaigns that a decision asked for since the last call."""
        touched, self._touched = self._touched, []
        for purse in touched:
            purse.touched = False
        return touched

    def sync(self, captured_micros: Mapping[int, int], asked: Iterable[int]) -> set[int]:
        """Takes what the ledger says of those of the leases asked for that are open for this process to draw on.

        What other processes captured is spent here too; a capture of ours whose word is still on its way looks like one
        of theirs until the next time. A lease that the ledger does not name has been taken from us.
        Answers the leases that are named and not known here: their grant never arrived.
        """
        self.forget([lease for lease in asked if lease not in captured_micros])
        for lease, micros in captured_micros.items():
            account = self._accounts.get(lease)
            if account is not None:
                account.hear(micros)
                if account.retired:
                    self._reconsider(account)
        return captured_micros.keys() - self._accounts.keys()

    def retire(self, accounts: Iterable[Account]) -> None:
        """Ends the drawing on leases."""
        for account in accounts:
            account.purse.open.remove(account)
            account.purse.retired.append(account)
            account.retired = True
            self._leaving[account.lease.id] = account

    def retire_ended(self, now_ms: int) -> None:
        """Ends the drawing on leases whose day or campaign is over, as many as a step can carry. Their campaigns count as
        asked for: the first who asks on a new day is to find a lease."""
        for _ in range(ENDED_AT_ONCE_MAX):
            if not self._ends or self._ends[0][0] > now_ms:
                break
            account = self._accounts.get(heappop(self._ends)[1])
            if account is not None and account in account.purse.open:
                self.retire([account])
                if not account.purse.touched:
                    account.purse.touched = True
                    self._touched.append(account.purse)

    def leaving(self, now_ms: int) -> dict[int, int]:
        """The retired leases that no decision holds any more, each with the moment when its last ticket is over; and again those
        of which every ticket has been charged since, with an earlier one.

        They are answered again until they have `left`.
        """
        return {
            lease: max(now_ms, account.closes_at_ms())
            for lease, account in self._leaving.items()
            if not account.held_micros
        }

    def _reconsider(self, account: Account) -> None:
        """A lease that has left may close at once when its tickets are settled: what is left of it is room for others."""
        if account.settled():
            self._leaving[account.lease.id] = account

    def left(self, closes_at_ms: Mapping[int, int], now_ms: int) -> None:
        """The ledger knows when these close, as `leaving` said at `now_ms`; until then they are remembered for the pace's arithmetic.
        One that was settled meanwhile closes sooner, and is answered by `leaving` once more."""
        for lease, moment_ms in closes_at_ms.items():
            if moment_ms <= max(now_ms, self._leaving[lease].closes_at_ms()):
                del self._leaving[lease]
            heappush(self._closing, (moment_ms, lease))

    def forget_closed(self, now_ms: int) -> None:
        while self._closing and self._closing[0][0] <= now_ms:
            self.forget([heappop(self._closing)[1]])

    def forget(self, leases: Iterable[int]) -> None:
        for lease in leases:
            account = self._accounts.pop(lease, None)
            if account is None:
                continue
            self._leaving.pop(lease, None)
            purse = account.purse
            (purse.open if account in purse.open else purse.retired).remove(account)
            day, spent_micros = account.lease.budget_day, account.spent_micros + account.others_micros
            purse.closed_micros[day] = purse.closed_micros.get(day, 0) + spent_micros
