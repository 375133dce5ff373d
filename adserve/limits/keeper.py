"""Keeps the lease book supplied: takes leases ahead of need, gives back what is not needed, off the request path.

A step's work is in proportion to the campaigns that decisions asked for, not to those that there are.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Protocol
from uuid import UUID

from adserve.domain.ads import Campaign
from adserve.domain.time import DAY_MS, HOUR_MS, QUARTER_MS, SECOND_MS
from adserve.limits.leases import LeaseBook
from adserve.limits.lines import ASK_AGAIN_MAX_MS, ASK_AGAIN_MS, Line
from adserve.limits.pacing import QUARTERS_KEPT, Asked, Granted, Pacer, Unspent, Used
from adserve.limits.purses import UNPACED_MICROS, Account, Lease, Purse
from adserve.limits.rules import GRACE_MS

LEASES_S = 1.0
ROUND_MS = 10 * SECOND_MS
"""How often the traffic is written down, and what other processes do is looked at."""
ASKED_AT_ONCE_MAX = 1_000
FIRST_AT_ONCE_MAX = 250
WATCHED_MS = 300 * SECOND_MS
"""A campaign that nobody asks for is watched for so long, if the pace was why it had nothing."""
LOST_AFTER_MS = 310 * SECOND_MS
"""A replica that was not heard of for so long draws no more: its snapshot is too old to serve from."""
SPOOLS_TOLD_MS = 60 * SECOND_MS
"""After a start or a failed step no lease is closed for so long: after an outage every spool that is not lost has told of itself by then, and
what is in it may still be charged."""
TICKET_TTL_MAX_MS = DAY_MS
OFF_PACE_MAX = 1_000
PLAN_BEGUN = 5
"""So many times of what it may be ahead a campaign is to have spent before it is said to be off its plan."""
REACH_MS = LOST_AFTER_MS
"""How much longer than needed a lease's tickets are said to last, so that it need not be said for each: as long as a process
may draw that cannot say anything any more."""


class Ledger(Protocol):
    async def take(
        self, asked: Sequence[Asked], replica: UUID, tickets_until_ms: int, at_ms: int
    ) -> list[Granted]: ...

    async def forecast(self, unspent: Sequence[Unspent], replica: UUID, at_ms: int) -> list[Used]: ...

    async def drawable(self, replica: UUID) -> dict[int, int]: ...

    async def captured(
        self, replica: UUID, drawn: Sequence[int], retired: Sequence[int]
    ) -> dict[int, int]: ...

    async def newest_funds(self) -> int: ...

    async def extend(self, until_ms: Mapping[int, int]) -> None: ...

    async def freeze(self, closes_at_ms: Mapping[int, int], at_ms: int) -> None: ...

    async def freeze_lost(
        self, replica: UUID, heard_since_ms: int, closes_at_ms: int, at_ms: int
    ) -> None: ...

    async def close_due(self, at_ms: int) -> None: ...

    async def add_traffic(self, take: Callable[[], Mapping[tuple[int, str], int]]) -> None:
        """Calls `take` when it can write, and not otherwise."""
        ...

    async def traffic(self, since_quarter: int) -> Iterable[tuple[int, str, int]]: ...

    async def forget_traffic(self, before_quarter: int, at_ms: int) -> None: ...


class LeaseKeeper:
    """`campaigns` gives those that may be shown, the same object until one changes; `replica` is this process, new at
    every start.

    A step is due when `wake` is set, because a campaign has run short, and every LEASES_S.
    """

    def __init__(
        self,
        book: LeaseBook,
        ledger: Ledger,
        campaigns: Callable[[], Mapping[int, Campaign]],
        replica: UUID,
    ) -> None:
        self._book = book
        self._ledger = ledger
        self._campaigns = campaigns
        self._replica = replica
        self._pacer = Pacer(book.traffic)
        self._running: Mapping[int, Campaign] = {}
        self._lines: dict[int, Line] = {}
        self._watched: dict[int, Line] = {}
        self._unsupplied: list[int] = []
        self._funds = 0
        self._round_at_ms = 0
        self._ticket_ms = HOUR_MS + GRACE_MS
        self._doubtful = True
        self._closing_from_ms: int | None = None
        self.wake = asyncio.Event()
        book.on_short = self.wake.set

    async def step(self, now_ms: int) -> None:
        """Brings the book and the ledger together. Safe to repeat after a failure at any point."""
        closing_from_ms, self._closing_from_ms = self._closing_from_ms, None  # should this step fail
        self._book.expire(now_ms)
        self._book.retire_ended(now_ms)
        self._follow(self._campaigns())
        in_round = now_ms >= self._round_at_ms
        if in_round:
            await self._write_traffic(now_ms)
        lines = self._asked_for(now_ms)
        await self._sync(lines, in_round, now_ms)
        await self._plan(lines, in_round, now_ms)
        await self._supply(lines, now_ms)
        await self._take_first(now_ms)
        await self._leave(now_ms)
        if in_round:
            await self._ledger.freeze_lost(
                self._replica, now_ms - LOST_AFTER_MS, now_ms + TICKET_TTL_MAX_MS + GRACE_MS, now_ms
            )
            await self._ledger.forget_traffic(now_ms // QUARTER_MS - QUARTERS_KEPT, now_ms)
            self._round_at_ms = now_ms + ROUND_MS
        if closing_from_ms is None:
            closing_from_ms = now_ms + SPOOLS_TOLD_MS
        if now_ms >= closing_from_ms:
            await self._ledger.close_due(now_ms)
        self._closing_from_ms = closing_from_ms
        self._book.forget_closed(now_ms)
        if self._unsupplied:
            self.wake.set()

    async def stop(self, now_ms: int) -> None:
        """Draws no more. What no ticket can claim goes back now if it may, the rest when another process finds it due."""
        for purse in self._book.purses.values():
            self._book.retire(list(purse.open))
        await self._leave(now_ms)
        if self._closing_from_ms is not None and now_ms >= self._closing_from_ms:
            await self._ledger.close_due(now_ms)

    def off_pace(self, now_ms: int) -> tuple[int, float]:
        """How many paced campaigns were to have spent something by now, and how far each is off that, relative to it, in all; of the first
        OFF_PACE_MAX that were asked for."""
        count, off = 0, 0.0
        for line in islice(self._lines.values(), OFF_PACE_MAX):
            if line.paced and self._pacer.knows(line.campaign, line.day):
                allowed_micros, lead_micros = self._pacer.allowance(line.campaign, now_ms)
                if allowed_micros >= max(1, PLAN_BEGUN * lead_micros):
                    expected_micros = line.expected_micros + line.spending()[0] - line.ours_micros
                    count, off = count + 1, off + abs(expected_micros - allowed_micros) / allowed_micros
        return count, off

    def keeps_back(self, campaign: int) -> bool:
        """Whether the pace was why a decision that asked for the campaign last got nothing."""
        return self._book.paced_out(campaign)

    def _follow(self, running: Mapping[int, Campaign]) -> None:
        """Campaigns that are no more give up their leases; new ones get their first before anyone asks."""
        if running is self._running:
            return
        for campaign in self._book.purses.keys() - running.keys():
            purse = self._book.purses[campaign]
            self._book.retire(list(purse.open))
            if not purse.retired:  # its last ticket is over
                del self._book.purses[campaign]
        for campaign in self._lines.keys() - running.keys():
            del self._lines[campaign]
            self._watched.pop(campaign, None)
        self._unsupplied = [campaign for campaign in running if campaign not in self._book.purses]
        self._running = running

    def _asked_for(self, now_ms: int) -> list[Line]:
        """The campaigns that decisions asked for, and those whose pace is watched."""
        asked = self._watched
        self._watched = {}
        for purse in self._book.touched():
            line = self._line(purse, now_ms)
            if line is not None:
                line.touched_at_ms = now_ms
                asked[purse.campaign] = line
        return [line for line in asked.values() if self._line(line.purse, now_ms) is line]

    def _line(self, purse: Purse, now_ms: int) -> Line | None:
        campaign = self._running.get(purse.campaign)
        if campaign is None or now_ms < campaign.starts_at_ms:
            return None
        line = self._lines.get(purse.campaign)
        if line is None or line.campaign is not campaign or now_ms >= line.ends_at_ms:
            if campaign.ends_at_ms is not None and now_ms >= campaign.ends_at_ms:
                self._book.retire(list(purse.open))
                return None
            before, line = line, Line(campaign, purse, now_ms)
            if before is not None:
                line.asked_at_ms, line.asked_drawn_micros = before.asked_at_ms, before.asked_drawn_micros
                if before.day == line.day:
                    line.expected_micros, line.ours_micros = before.expected_micros, before.ours_micros
            self._lines[purse.campaign] = line
            for account in purse.open:
                account.ends_at_ms = min(account.lease.ends_at_ms, line.ends_at_ms)
            if not line.paced:
                purse.paced_micros = UNPACED_MICROS
        return line

    async def _write_traffic(self, now_ms: int) -> None:
        """Writes down what was counted here, and reads what all have counted. What may have been written is not written again: who
        counts ten seconds too little is late for a while, who counts them twice has spent too early."""
        traffic = self._pacer.traffic
        if traffic.newest:
            await self._ledger.add_traffic(lambda: traffic.take_newest(now_ms))
        quarter = now_ms // QUARTER_MS
        since = quarter - 1 if traffic.read_quarter >= quarter - 1 else quarter - QUARTERS_KEPT
        traffic.learn(await self._ledger.traffic(since), now_ms)
        self._pacer.refresh(now_ms)

    async def _sync(self, lines: Iterable[Line], in_round: bool, now_ms: int) -> None:
        """Hears what others captured of our leases, and of grants that never arrived."""
        drawn = [account.lease.id for line in lines for account in line.purse.open]
        retired = [account.lease.id for line in lines if line.paced for account in line.purse.retired]
        retired = retired if in_round else []
        captured = await self._ledger.captured(self._replica, drawn, retired) if drawn or retired else {}
        if self._doubtful:
            captured = await self._ledger.drawable(self._replica) | captured
        orphans = self._book.sync(captured, (*drawn, *retired))
        if orphans:
            await self._ledger.freeze(dict.fromkeys(orphans, now_ms), now_ms)
        self._doubtful = False

    async def _plan(self, lines: Iterable[Line], in_round: bool, now_ms: int) -> None:
        """Hears what others will probably have charged of paced campaigns, and plans the days that are new."""
        heard: dict[int, Line] = {
            line.campaign.id: line
            for line in lines
            if line.paced and (in_round or not self._pacer.knows(line.campaign, line.day))
        }
        unspent = [Unspent(number, line.day, line.spending()[1]) for number, line in heard.items()]
        if not unspent:
            return
        for used in await self._ledger.forecast(unspent, self._replica, now_ms):
            line = heard[used.campaign]
            line.expected_micros, line.ours_micros = used.day_micros, line.spending()[0]
            if not self._pacer.knows(line.campaign, line.day):
                self._pacer.begin(line.campaign, line.day, line.ends_at_ms, used, now_ms)

    async def _supply(self, lines: Iterable[Line], now_ms: int) -> None:
        asked: list[Asked] = []
        if any(line.again_at_ms for line in lines):
            self._funds = await self._ledger.newest_funds()
        used_up: list[Account] = []
        outlasting: dict[int, int] = {}
        for line in lines:
            ask = self._paced(line, now_ms) if line.paced else self._unpaced(line, now_ms)
            if ask is not None:
                asked.append(ask)
            for account in line.purse.open:
                self._ticket_ms = max(self._ticket_ms, account.last_back_at_ms - now_ms)
                if account.last_back_at_ms > account.tickets_until_ms:
                    account.tickets_until_ms = outlasting[account.lease.id] = (
                        account.last_back_at_ms + REACH_MS
                    )
            used_up += [
                account
                for account in line.purse.open[:-1]
                if account.free_micros + account.held_micros < line.least_micros
            ]
        if outlasting:
            await self._ledger.extend(outlasting)
        self._book.retire(used_up)
        for grant in await self._take(asked, now_ms):
            self._granted(self._lines[grant.campaign], grant, now_ms)

    async def _take(self, asked: Sequence[Asked], now_ms: int) -> list[Granted]:
        granted: list[Granted] = []
        until_ms = now_ms + self._ticket_ms + REACH_MS
        for first in range(0, len(asked), ASKED_AT_ONCE_MAX):
            self._doubtful = True  # until the answer is here
            some = asked[first : first + ASKED_AT_ONCE_MAX]
            granted += await self._ledger.take(some, self._replica, until_ms, now_ms)
            self._doubtful = False
        return granted

    async def _take_first(self, now_ms: int) -> None:
        """Leases for campaigns that nobody has asked for yet, so that the first who asks finds one."""
        first = [
            Line(self._running[campaign], self._book.purse(campaign), now_ms)
            for campaign in self._unsupplied[:FIRST_AT_ONCE_MAX]
        ]
        lines: dict[int, Line] = {
            line.campaign.id: line
            for line in first
            if not line.purse.open and line.campaign.starts_at_ms <= now_ms < line.ends_at_ms
        }
        asked = [
            Asked(
                line.campaign.id,
                line.day,
                line.first_micros(),
                line.event_micros,
                None,
                0 if line.paced else None,
            )
            for line in lines.values()
        ]
        for grant in await self._take(asked, now_ms):
            line = lines[grant.campaign]
            if grant.lease is not None:
                line.purse.paced_micros = grant.micros if line.paced else UNPACED_MICROS
                self._add(line, grant.lease, grant.micros, now_ms)
        del self._unsupplied[:FIRST_AT_ONCE_MAX]

    def _unpaced(self, line: Line, now_ms: int) -> Asked | None:
        if self._waits(line, now_ms):
            return None
        wanted_micros = line.supply_micros(now_ms)
        free_micros = line.purse.free_micros(now_ms)
        holds_one = line.campaign.billable == "click" or free_micros >= line.event_micros
        if holds_one and 2 * free_micros >= wanted_micros:
            return None
        return Asked(line.campaign.id, line.day, wanted_micros, line.event_micros, None, None)

    def _paced(self, line: Line, now_ms: int) -> Asked | None:
        """Lets decisions hold what the plan has room for, and asks for a lease a little ahead of that."""
        purse, event_micros = line.purse, line.event_micros
        allowed_micros, lead_micros = self._pacer.allowance(line.campaign, now_ms)
        ours_micros, unspent_micros = line.spending()
        expected_micros = line.expected_micros + ours_micros - line.ours_micros
        room_micros = allowed_micros + lead_micros - expected_micros
        purse.paced_micros = max(0, room_micros)
        if room_micros < event_micros and now_ms < line.touched_at_ms + WATCHED_MS:
            self._watched[purse.campaign] = line
        free_micros = purse.free_micros(now_ms)
        ahead_micros = room_micros + line.ahead_micros(lead_micros) - free_micros
        if free_micros >= max(event_micros, room_micros) or ahead_micros < event_micros:
            return None
        if self._waits(line, now_ms):
            return None
        return Asked(
            line.campaign.id,
            line.day,
            min(ahead_micros, max(lead_micros, line.supply_micros(now_ms))),
            event_micros,
            expected_micros + ahead_micros,
            unspent_micros,
        )

    def _waits(self, line: Line, now_ms: int) -> bool:
        return now_ms < line.again_at_ms and line.funds == self._funds

    def _granted(self, line: Line, grant: Granted, now_ms: int) -> None:
        line.asked_at_ms, line.asked_drawn_micros = now_ms, line.purse.drawn_micros
        if grant.expected_micros is not None:
            line.expected_micros, line.ours_micros = grant.expected_micros, line.spending()[0]
        if grant.lease is not None:
            line.again_at_ms, line.patience_ms = 0, ASK_AGAIN_MS
            self._add(line, grant.lease, grant.micros, now_ms)
        elif grant.paced:
            line.purse.lacks_pace = True
            self._watched[grant.campaign] = line
        else:
            line.again_at_ms, line.funds = now_ms + line.patience_ms, self._funds
            line.patience_ms = min(2 * line.patience_ms, ASK_AGAIN_MAX_MS)

    def _add(self, line: Line, lease: int, micros: int, now_ms: int) -> None:
        by_click = line.campaign.billable == "click"
        day = line.day.toordinal()
        account = self._book.add(Lease(lease, line.campaign.id, day, micros, line.ends_at_ms, by_click))
        account.tickets_until_ms = now_ms + self._ticket_ms + REACH_MS

    async def _leave(self, now_ms: int) -> None:
        leaving = self._book.leaving(now_ms)
        if leaving:
            await self._ledger.freeze(leaving, now_ms)
            self._book.left(leaving, now_ms)
