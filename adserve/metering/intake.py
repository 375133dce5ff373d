"""What becomes of the events that clients report: opened, judged, confirmed, recorded."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, NamedTuple, Protocol
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace

from adserve.domain.events import (
    ACCEPTED,
    CONFIRMING,
    DUPLICATE,
    HIDE,
    INVALID_TRAFFIC,
    LATE,
    OVER_CAP,
    RECORDED,
    REFUSED,
    REPORT,
    UNBILLED_KIND,
    VIEW,
    Event,
    EventKind,
    Outcome,
    Settled,
)
from adserve.domain.ids import EventId, at_moment, derived_uuid7s, moment_of
from adserve.domain.money import Money
from adserve.domain.tickets import Ticket
from adserve.domain.traffic import Source, Verdict
from adserve.limits.counters import CountersAway
from adserve.limits.hides import Hides
from adserve.limits.leases import LeaseBook
from adserve.metering.errors import TicketRefused
from adserve.metering.recorder import Recorder
from adserve.metering.tickets import Sealer
from adserve.metering.traffic import Moments, Traffic

KINDS = {str(kind): kind for kind in EventKind}
WITHHOLDING = frozenset({HIDE, REPORT})
"""The kinds by which a viewer asks not to see the advertiser again."""
TO_CHARGE = frozenset({RECORDED, ACCEPTED})
ASKED_AT_ONCE = 8
"""Of so many events of a call the counters are asked before the first answer is awaited: shared ones are a way off, and decisions wait behind
what they are asked."""


class Problem(NamedTuple):
    """`field` is a JSON path from the event, as in `$.kind`."""

    field: str
    reason: str


class Report(Struct, frozen=True, gc=False):
    """An event as it came in. `problems` are what decoding found; any of them refuses it. `source` goes no further."""

    token: str
    kind: str
    occurred_at_ms: int | None = None
    view_ms: int | None = None
    problems: tuple[Problem, ...] = ()
    source: Source | None = None


class Answer(Struct, frozen=True, gc=False):
    """`billed` is None where nothing is known of money yet, or nothing is charged; `event` where it is refused."""

    event: EventId | None
    outcome: Outcome
    billed: Money | None
    errors: tuple[Problem, ...] = ()


class Counters(Protocol):
    @property
    def epoch(self) -> int: ...

    def confirm(self, ticket: Ticket, at_ms: int, now_ms: int) -> Coroutine[Any, Any, bool]:
        """Whether the ticket counts; its first confirmation decides, later ones repeat it. Several may be asked for before the first
        is awaited: the counters take them in that order."""
        ...

    async def doubt(self, ticket: Ticket) -> None:
        """Whether the event that confirmed the ticket was stored is not known: it may come again, later. Never raises."""
        ...

    async def hide(self, ticket: Ticket, at_ms: int) -> None: ...


_Asked = tuple[Event, Coroutine[Any, Any, bool] | None]
"""An event as it is if it counts, and the counters' answer whether it does, where they were asked."""


class Intake:
    """Takes reports and answers when they are durable. `draw` gives 128 bits of chance a call, for event ids.

    `may_serve` says whether our counters are the only ones: without that, they are not asked.
    """

    def __init__(
        self,
        sealer: Sealer,
        counters: Counters,
        leases: LeaseBook,
        recorder: Recorder,
        draw: Callable[[], int],
        *,
        hides: Hides,
        may_serve: Callable[[], bool],
        traffic: Traffic,
    ) -> None:
        self._sealer = sealer
        self._counters = counters
        self._leases = leases
        self._recorder = recorder
        self._draw = draw
        self._hides = hides
        self._may_serve = may_serve
        self._traffic = traffic

    async def take(self, reports: Sequence[Report], received_at_ms: int) -> list[Answer]:
        """One answer a report, in order. Raises RecorderUnavailable when not all of them could be made durable."""
        confirming: list[Ticket] = []
        try:
            return await self._take(reports, received_at_ms, confirming)
        except (Exception, asyncio.CancelledError):
            for ticket in confirming:  # what the counters were asked, whether they have answered or not
                await self._counters.doubt(ticket)
            raise

    async def _take(
        self, reports: Sequence[Report], received_at_ms: int, confirming: list[Ticket]
    ) -> list[Answer]:
        ids = derived_uuid7s(received_at_ms, self._draw(), len(reports))
        opened = [self._open(report, received_at_ms) for report in reports]
        known = list(zip(reports, opened, ids, strict=True))
        judged: list[Event | Answer] = []
        for first in range(0, len(known), ASKED_AT_ONCE):
            asked = [
                ticket if isinstance(ticket, Answer) else self._judge(report, ticket, event, received_at_ms)
                for report, ticket, event in known[first : first + ASKED_AT_ONCE]
            ]
            confirming += [
                one[0].ticket for one in asked if not isinstance(one, Answer) and one[1] is not None
            ]
            judged += await self._all_counted(asked)
        events = [event for event in judged if isinstance(event, Event)]
        settled = iter(await self._recorder.record(events))
        answers = []
        for taken in judged:
            if isinstance(taken, Answer):
                answers.append(taken)
            else:
                answers.append(await self._conclude(taken, next(settled)))
        return answers

    def _open(self, report: Report, received_at_ms: int) -> Ticket | Answer:
        """The ticket of what can be an event, or why it cannot."""
        if report.problems:
            return _refused(*report.problems)
        kind = KINDS.get(report.kind)
        if kind is None:
            return _refused(Problem("$.kind", f"must be one of {', '.join(EventKind)}"))
        try:
            ticket = self._sealer.open(report.token, received_at_ms)
        except TicketRefused as error:
            return _refused(Problem("$.ticket", str(error)))
        if kind is VIEW and not _lasted(report.view_ms, ticket):
            return _refused(
                Problem("$.view_ms", f"a view of this ad lasts at least {ticket.view_least_ms} ms")
            )
        return ticket

    def _judge(self, report: Report, ticket: Ticket, event_id: UUID, received_at_ms: int) -> _Asked:
        """With what is known before the ledger has seen it. Invalid traffic is confirmed as well: it was shown, and what it says must
        not make room for more."""
        kind = KINDS[report.kind]
        # The clock of the process that issued it may be ahead of ours: its windows were looked at as of then.
        at_ms = max(received_at_ms, ticket.issued_at_ms)
        event = EventId(event_id if at_ms == received_at_ms else at_moment(event_id, at_ms))
        if at_ms > ticket.expires_at_ms:
            return Event(event, kind, ticket, LATE, at_ms, report.occurred_at_ms, report.view_ms), None
        moments = Moments(at_ms, report.occurred_at_ms, report.view_ms)
        verdict = self._traffic.judge(kind, ticket, moments, report.source)
        outcome, epoch, counts = rating(kind, ticket, verdict), None, None
        if kind in CONFIRMING:
            try:
                if self._may_serve():
                    epoch, counts = self._counters.epoch, self._counters.confirm(ticket, at_ms, at_ms)
                else:
                    outcome = ACCEPTED
            except CountersAway:
                outcome = ACCEPTED
        told = report.occurred_at_ms, report.view_ms
        return Event(event, kind, ticket, outcome, at_ms, *told, verdict, epoch), counts

    async def _conclude(self, event: Event, settled: Settled) -> Answer:
        """Tells the budgets and counters. A duplicate hides too: it may have come first just before PostgreSQL went away."""
        accepted = settled.outcome is ACCEPTED
        will_charge = (
            accepted
            and event.outcome in TO_CHARGE
            and event.kind == event.ticket.billable
            and event.verdict.reason is None
        )
        if settled.outcome is RECORDED or will_charge:
            # What waits for the counters or the ledger is to be charged as well.
            self._leases.captured(event.ticket.ticket, event.ticket.lease, event.ticket.price_micros)
        if event.kind in WITHHOLDING:
            self._hides.add(event.ticket.viewer_cap, event.ticket.advertiser, event.received_at_ms)
            await self._counters.hide(event.ticket, event.received_at_ms)
        overtaken = settled.outcome is DUPLICATE and moment_of(settled.event) > event.received_at_ms
        waits = (accepted or settled.waits) and event.outcome is not ACCEPTED
        if event.kind in CONFIRMING and (overtaken or waits):
            # What was confirmed with our moment is stored with a later one, or may be, where it comes again before it settles.
            await self._counters.doubt(event.ticket)
        return Answer(settled.event, settled.outcome, settled.billed)

    async def _all_counted(self, asked: Sequence[_Asked | Answer]) -> list[Event | Answer]:
        try:
            return [one if isinstance(one, Answer) else await self._counted(*one) for one in asked]
        except BaseException:  # cut off: the other answers are not awaited any more
            for one in asked:
                if not isinstance(one, Answer) and one[1] is not None:
                    one[1].close()
            raise

    async def _counted(self, event: Event, counts: Coroutine[Any, Any, bool] | None) -> Event:
        """The event with the counters' answer, if they can say."""
        try:
            if counts is None or await counts:
                return event
        except (CountersAway, TimeoutError):
            # They may have counted it all the same, and it may come again and be stored, later, before this one is.
            await self._counters.doubt(event.ticket)
            return replace(event, outcome=ACCEPTED, counted_in=None)
        return replace(event, outcome=OVER_CAP, counted_in=None)


def rated(event: Event, *, counts: bool, epoch: int | None) -> Event:
    """An event that waited for the counters, now that they have told, in that epoch, whether it counts."""
    if not counts:
        return replace(event, outcome=OVER_CAP)
    return replace(event, outcome=rating(event.kind, event.ticket, event.verdict), counted_in=epoch)


def rating(kind: EventKind, ticket: Ticket, verdict: Verdict) -> Outcome:
    """What is known before the ledger speaks of an event that came in time and is within its caps."""
    if verdict.reason is not None:
        return INVALID_TRAFFIC
    return RECORDED if kind == ticket.billable else UNBILLED_KIND


def _lasted(view_ms: int | None, ticket: Ticket) -> bool:
    """A client that does not say how long is believed, but not where that costs money. What is refused may come again."""
    if view_ms is None:
        return ticket.billable != VIEW
    return view_ms >= ticket.view_least_ms


def _refused(*problems: Problem) -> Answer:
    return Answer(None, REFUSED, None, problems)
