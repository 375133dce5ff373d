"""Gathers events into batches and answers each caller when all of its events have committed.

A free writer takes what waits at once, so that a lone event does not wait for company; only while other writers
are committing does it linger, until enough wait or one of them is done. What is to be charged to a lease that another
writer's batch charges stays in the queue: in the ledger it would wait for that one's commit, and all of its batch with it.

A batch that the ledger does not take within LEDGER_S goes to the spool, and from then on every batch does so at once, until
`mend` is called: while the ledger is away, nobody waits for it.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Protocol

from msgspec import Struct

from adserve.domain.events import RECORDED, Event, Settled
from adserve.metering.errors import RecorderFull, RecorderUnavailable
from adserve.metering.settle import Journal, settle

log = logging.getLogger(__name__)

LINGER_S = 0.005
ENOUGH = 40
"""So many are stored beside what others are storing: a call of the ledger costs before its first event what these cost in it."""
LEDGER_S = 2.0
"""How long a batch may take before it goes to the spool: longer than a server at work ever takes, as what is spooled is
rated later."""
ANSWER_S = 5.0
"""How long a caller waits: while the ledger hangs, so does every writer, and what is behind them waits for more than one."""


class Spool(Protocol):
    async def keep(self, events: Sequence[Event]) -> list[Settled]:
        """Makes all of the events durable, and answers in their order. Raises RecorderUnavailable when it cannot."""
        ...


class _Call:
    """One caller's events: done when every one of them is, failed when one of them is."""

    def __init__(self, size: int, done: asyncio.Future[None]) -> None:
        self.settled: list[Settled | None] = [None] * size
        self.done = done
        self._missing = size

    def settle(self, place: int, settled: Settled) -> None:
        self.settled[place] = settled
        self._missing -= 1
        if not self._missing and not self.done.done():
            self.done.set_result(None)

    def fail(self, error: RecorderUnavailable) -> None:
        if not self.done.done():
            self.done.set_exception(error)


class _Waiting(Struct, frozen=True, gc=False):
    """`lease` is the one that the event is to be charged to, if it is."""

    event: Event
    lease: int | None
    call: _Call
    place: int


class Recorder:
    """The queue before the ledger. `run` is the task that empties it; nothing is recorded without it.

    `away` says whether events go to the spool. Without a spool, callers are told to send them again.
    """

    def __init__(
        self,
        journal: Journal,
        spool: Spool | None = None,
        *,
        writers: int = 2,
        batch_rows_max: int = 1_000,
        events_queued_max: int = 20_000,
    ) -> None:
        self.away = False
        self._journal = journal
        self._spool = spool
        self._writers = writers
        self._batch_rows_max = batch_rows_max
        self._events_queued_max = events_queued_max
        self._queue: deque[_Waiting] = deque()
        # By the lease of a batch on its way, for each of its leases.
        self._behind: dict[int, list[_Waiting]] = {}
        self._queued = 0
        self._busy = 0
        self._closed = False
        self._some = asyncio.Event()
        self._linger_no_more = asyncio.Event()
        self._idle = asyncio.Event()

    @property
    def queued(self) -> int:
        return self._queued

    async def record(self, events: Sequence[Event]) -> list[Settled]:
        """What became of each event, in their order, once all of them are durable.

        Raises RecorderUnavailable when that is not so of some of them within ANSWER_S: send them again, the others
        will be duplicates. A caller that leaves does not take its events back.
        """
        if not events:
            return []
        if self._closed:
            raise RecorderUnavailable("shutting down")
        if self._queued + len(events) > self._events_queued_max:
            raise RecorderFull
        loop = asyncio.get_running_loop()
        call = _Call(len(events), loop.create_future())
        for place, event in enumerate(events):
            self._enqueue(_Waiting(event, _charged(event), call, place))
        self._queued += len(events)
        if self._queue:
            self._some.set()
        if len(self._queue) >= ENOUGH:
            self._linger_no_more.set()
        # A timer, as a plain request is not in a task of its own when it comes here.
        patience = loop.call_later(ANSWER_S, call.fail, RecorderUnavailable("the ledger takes too long"))
        try:
            await call.done
        finally:
            patience.cancel()
        return [settled for settled in call.settled if settled is not None]

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(self._writers):
                group.create_task(self._write())

    def mend(self) -> None:
        """The ledger is there again, or the next batch is to find out whether it is."""
        self.away = False

    async def drain(self) -> None:
        """Takes no more, and returns when everything taken has been answered."""
        self._closed = True
        while self._queue or self._busy:
            self._idle.clear()
            await self._idle.wait()

    async def _write(self) -> None:
        while True:
            await self._some.wait()
            if self._busy and 0 < len(self._queue) < ENOUGH:
                await self._linger()
            batch = self._take()
            if batch:
                await self._commit(batch)

    async def _linger(self) -> None:
        self._linger_no_more.clear()
        try:
            async with asyncio.timeout(LINGER_S):
                await self._linger_no_more.wait()
        except TimeoutError:
            pass

    def _enqueue(self, waiting: _Waiting) -> None:
        behind = None if waiting.lease is None else self._behind.get(waiting.lease)
        (self._queue if behind is None else behind).append(waiting)

    def _take(self) -> list[_Waiting]:
        """The oldest that no other batch is before; whatever charges their leases is behind them until `_free`."""
        batch: list[_Waiting] = []
        while self._queue and len(batch) < self._batch_rows_max:
            waiting = self._queue.popleft()
            if waiting.lease is not None and waiting.lease in self._behind:
                self._behind[waiting.lease].append(waiting)
            else:
                batch.append(waiting)
        self._behind.update((waiting.lease, []) for waiting in batch if waiting.lease is not None)
        self._queued -= len(batch)
        if not self._queue:
            self._some.clear()
        return batch

    def _free(self, batch: Iterable[_Waiting]) -> None:
        for lease in {waiting.lease for waiting in batch if waiting.lease is not None}:
            self._queue.extendleft(reversed(self._behind.pop(lease)))
        if self._queue:
            self._some.set()

    async def _commit(self, batch: list[_Waiting]) -> None:
        self._busy += 1
        try:
            for waiting, settled in zip(
                batch, await self._store([waiting.event for waiting in batch]), strict=True
            ):
                waiting.call.settle(waiting.place, settled)
        except RecorderUnavailable as error:
            self._fail(batch, error)
        except BaseException:
            self._fail(batch, RecorderUnavailable("the recorder stopped"))
            raise
        finally:
            self._busy -= 1
            self._free(batch)
            self._linger_no_more.set()
            self._idle.set()

    async def _store(self, events: Sequence[Event]) -> list[Settled]:
        if self._spool is None:
            return await settle(self._journal, events)
        if not self.away:
            try:
                return await settle(self._journal, events, LEDGER_S)
            except RecorderUnavailable as error:
                self._leave(error)
        return await self._spool.keep(events)

    def _leave(self, error: RecorderUnavailable) -> None:
        if not self.away:
            log.warning("the ledger is away, events go to the spool: %s", error)
        self.away = True

    @staticmethod
    def _fail(batch: list[_Waiting], error: RecorderUnavailable) -> None:
        for waiting in batch:
            waiting.call.fail(error)


def _charged(event: Event) -> int | None:
    return event.ticket.lease if event.outcome is RECORDED else None
