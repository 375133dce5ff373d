"""Settles what came while the ledger was away, and so finds out when it is there again."""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol
from uuid import UUID

from adserve.domain.events import CONFIRMING, Event, Outcome, Settled
from adserve.domain.ids import moment_of
from adserve.domain.time import SECOND_MS
from adserve.metering.errors import RecorderUnavailable
from adserve.metering.intake import Counters
from adserve.metering.recorder import ANSWER_S, LEDGER_S, Recorder
from adserve.metering.settle import Journal, settle

log = logging.getLogger(__name__)

PACE_S = 0.1
"""Between two batches."""
LOOK_MS = 5 * SECOND_MS
"""How often an idle process looks for what others have left, and says how far its machine's spool is settled."""
IN_FLIGHT_MS = round(2 * ANSWER_S * SECOND_MS)
"""What was received before that is neither queued nor on its way into the spool."""


class Row(Protocol):
    """`event` is None where what was kept cannot be read; `raw` is what it is."""

    @property
    def number(self) -> int: ...
    @property
    def ticket(self) -> UUID: ...
    @property
    def kind(self) -> str: ...
    @property
    def id(self) -> UUID: ...
    @property
    def event(self) -> Event | None: ...
    @property
    def raw(self) -> bytes: ...


class Waiting(Protocol):
    @property
    def events(self) -> int: ...
    @property
    def bytes(self) -> int: ...
    @property
    def oldest_at_ms(self) -> int | None: ...


class Spool(Protocol):
    """Rows have rising numbers, none of which is given twice."""

    @property
    def id(self) -> UUID: ...

    async def waiting(self) -> Waiting: ...

    async def oldest(self, most: int, after: int = 0) -> Sequence[Row]: ...

    async def remove(self, numbers: Sequence[int]) -> None: ...

    def turn(self) -> AbstractContextManager[bool]: ...


class Notes(Protocol):
    """What the ledger knows of spools. Raises JournalAway."""

    async def note(self, spool: UUID, settled_until_ms: int, at_ms: int) -> None:
        """Everything that a machine's processes received before a moment is settled: leases wait for that."""
        ...

    async def forget(self, spool: UUID) -> None: ...

    async def put_aside(self, row: Row, reason: str, at_ms: int) -> None: ...


class Spooled:
    """`step` settles one batch of at most `most`; as rows leave the spool only after the ledger has them and the counters were told, and
    the ledger takes none twice, repeating it is harmless. `wake` is set while more may wait."""

    def __init__(
        self, spool: Spool, journal: Journal, notes: Notes, recorder: Recorder, counters: Counters, most: int
    ) -> None:
        self.waiting: Waiting | None = None
        self.wake = asyncio.Event()
        self._spool = spool
        self._journal = journal
        self._notes = notes
        self._recorder = recorder
        self._counters = counters
        self._most = self._most_now = most
        self._after = 0
        self._look_at_ms = 0

    async def step(self, now_ms: int) -> None:
        """Raises RecorderUnavailable or JournalAway as long as the ledger is away."""
        if not self._recorder.away and not self._waits and now_ms < self._look_at_ms:
            return
        self.waiting = await self._spool.waiting()
        settled_until_ms = now_ms - IN_FLIGHT_MS
        if self.waiting.oldest_at_ms is not None:
            settled_until_ms = min(settled_until_ms, self.waiting.oldest_at_ms)
        if self._waits:
            with self._spool.turn() as ours:
                if ours or self._recorder.away:
                    await self._settle(self._most_now if ours else 1, now_ms)
            if ours:
                self.wake.set()
        else:
            self._recorder.mend()
        await self._notes.note(self._spool.id, settled_until_ms, now_ms)
        self._look_at_ms = now_ms + LOOK_MS

    async def leave(self) -> None:
        """With an empty spool, nobody has to wait for this machine any more."""
        self.waiting = await self._spool.waiting()
        if not self._waits:
            await self._notes.forget(self._spool.id)

    @property
    def _waits(self) -> bool:
        return self.waiting is not None and self.waiting.events > 0

    async def _settle(self, most: int, now_ms: int) -> None:
        rows = await self._spool.oldest(most, self._after)
        if not rows:
            self._after = 0
            return
        for row in rows:
            if row.event is None:
                log.error("a row of the spool cannot be read", extra={"event": str(row.id)})
                await self._notes.put_aside(row, "the spool's row cannot be read", now_ms)
        events = [row.event for row in rows if row.event is not None]
        began_s = asyncio.get_running_loop().time()
        try:
            settled = await settle(self._journal, events) if events else []
        except RecorderUnavailable:
            if most == 1:  # should it be this one row, it holds up no other
                self._after = rows[0].number
            self._most_now = max(1, most // 2)
            raise
        if asyncio.get_running_loop().time() - began_s < LEDGER_S:
            self._recorder.mend()
        self._most_now = min(self._most, 2 * self._most_now)
        for event, one in zip(events, settled, strict=True):
            if _overtaken(event, one):
                await self._counters.doubt(event.ticket)
        await self._spool.remove([row.number for row in rows])


def _overtaken(event: Event, settled: Settled) -> bool:
    """Whether the counters know the ticket by our moment, and the ledger by a later one, or not at all, as it was put aside."""
    later = settled.outcome is Outcome.DUPLICATE and moment_of(settled.event) > event.received_at_ms
    aside = settled.outcome is Outcome.ACCEPTED and event.outcome is not Outcome.ACCEPTED
    return event.kind in CONFIRMING and (later or aside)
