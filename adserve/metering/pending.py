"""Settles the impressions and views that came while the counters could not say whether they count."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from adserve.domain.events import Event, Settled
from adserve.limits.counters import CountersAway
from adserve.metering.errors import (
    DayMissing,
    JournalAway,
    JournalContended,
    JournalOutdated,
    JournalRejected,
)
from adserve.metering.intake import Counters, rated

AT_ONCE = 200
TURN_S = 0.05
TURNS_MAX = 100
"""How often another process is waited for that is at it, or at what is needed for it."""

Judge = Callable[[Sequence[Event]], Awaitable[list[Event]]]


class Journal(Protocol):
    async def settle_pending(self, judge: Judge, most: int) -> list[tuple[Event, Settled]] | None: ...

    async def quarantine_pending(self, event: Event, reason: str) -> None: ...

    async def count_pending(self) -> int: ...


class Pending:
    """`waiting` is how many there were at the last step. Each leaves in one transaction, so repeating is harmless: the
    first confirmation of a ticket decides, and its event is stored once."""

    def __init__(self, journal: Journal, counters: Counters) -> None:
        self._journal = journal
        self._counters = counters
        self.waiting = 0

    async def step(self, now_ms: int) -> None:
        try:
            await self.settle(self._counters, now_ms)
        except CountersAway:
            return  # they are asked again
        if self.waiting:
            self.waiting = await self._journal.count_pending()

    async def settle(self, counters: Counters, now_ms: int) -> int:
        """Those that there are, oldest first; answers how many. Raises CountersAway when not all can be judged. Those that come meanwhile
        may be left for the next time: they may come as fast as they are settled."""
        self.waiting = await self._journal.count_pending()
        judging: Sequence[Event] = []

        async def judge(events: Sequence[Event]) -> list[Event]:
            nonlocal judging
            judging = events
            return await asyncio.gather(*[_judged(counters, event, now_ms) for event in events])

        settled, most, turns = 0, AT_ONCE, 0
        while settled < self.waiting:
            try:
                moved = await self._journal.settle_pending(judge, most)
            except JournalContended:
                moved = None
            except JournalOutdated as error:
                raise CountersAway(str(error)) from error
            except DayMissing as error:
                raise JournalAway(f"partitions are not made ahead: {error}") from error
            except JournalRejected as error:
                if most > 1:
                    most = 1
                    continue
                (refused,) = judging
                await counters.doubt(refused.ticket)  # it may be sent again in good form
                await self._journal.quarantine_pending(refused, str(error))
                most = AT_ONCE
                continue
            if moved is None:
                turns += 1
                if turns == TURNS_MAX:
                    raise CountersAway("another process settles the pending events")
                await asyncio.sleep(TURN_S)
            elif moved:
                settled += len(moved)
            else:
                break
        return settled


async def _judged(counters: Counters, event: Event, now_ms: int) -> Event:
    epoch = counters.epoch
    try:
        counts = await counters.confirm(event.ticket, event.received_at_ms, now_ms)
    except TimeoutError as error:
        raise CountersAway(str(error)) from error
    return rated(event, counts=counts, epoch=epoch)
