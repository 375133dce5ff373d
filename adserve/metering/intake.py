"""What becomes of the events that clients report: opened, judged, confirmed, recorded."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple, Protocol

from adserve.domain.events import CONFIRMING, Event, EventKind, Outcome, Settled
from adserve.domain.ids import EventId, derived_uuid7, moment_of
from adserve.domain.money import Money
from adserve.domain.tickets import Ticket
from adserve.limits.counters import CountersAway
from adserve.limits.hides import Hides
from adserve.limits.leases import LeaseBook
from adserve.metering.errors import RecorderUnavailable, TicketRefused
from adserve.metering.recorder import Recorder
from adserve.metering.tickets import Sealer

WITHHOLDING = frozenset({EventKind.HIDE, EventKind.REPORT})
"""The kinds by which a viewer asks not to see the advertiser again."""
UNCOUNTED = frozenset({Outcome.LATE, Outcome.OVER_CAP})


class Problem(NamedTuple):
    """`field` is a JSON path from the event, as in `$.kind`."""

    field: str
    reason: str


class Report(NamedTuple):
    """An event as it came in. `problems` are what decoding found; any of them refuses it."""

    token: str
    kind: str
    occurred_at_ms: int | None = None
    view_ms: int | None = None
    problems: tuple[Problem, ...] = ()


class Answer(NamedTuple):
    """`billed` is None where nothing is known of money yet, or nothing is charged; `event` where it is refused."""

    event: EventId | None
    outcome: Outcome
    billed: Money | None
    errors: tuple[Problem, ...] = ()


class Counters(Protocol):
    async def confirm(self, ticket: Ticket, at_ms: int, now_ms: int) -> bool:
        """Whether the ticket counts; its first confirmation decides, later ones repeat it."""
        ...

    async def doubt(self, ticket: Ticket) -> None:
        """Whether the event that confirmed the ticket was stored is not known: it may come again, later."""
        ...

    async def hide(self, ticket: Ticket, at_ms: int) -> None: ...


class Intake:
    """Takes reports and answers when they are durable. `draw` gives 128 bits of chance a call, for event ids.

    `may_serve` says whether our counters are the only ones: without that, nothing is confirmed or recorded.
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
    ) -> None:
        self._sealer = sealer
        self._counters = counters
        self._leases = leases
        self._recorder = recorder
        self._draw = draw
        self._hides = hides
        self._may_serve = may_serve

    async def take(self, reports: Sequence[Report], received_at_ms: int) -> list[Answer]:
        """One answer a report, in order. Raises RecorderUnavailable when not all of them could be made durable."""
        if not self._may_serve():
            raise RecorderUnavailable("another process may be serving")
        seed = self._draw()
        judged: list[Event | Answer] = []
        for nth, report in enumerate(reports):
            event = EventId(derived_uuid7(received_at_ms, seed, nth))
            judged.append(await self._judge(report, event, received_at_ms))
        events = [event for event in judged if isinstance(event, Event)]
        try:
            settled = iter(await self._recorder.record(events))
        except RecorderUnavailable:
            for doubtful in events:
                if doubtful.kind in CONFIRMING and doubtful.outcome not in UNCOUNTED:
                    with suppress(CountersAway):  # then it was not confirmed either
                        await self._counters.doubt(doubtful.ticket)
            raise
        answers = []
        for taken in judged:
            if isinstance(taken, Answer):
                answers.append(taken)
            else:
                answers.append(await self._conclude(taken, next(settled)))
        return answers

    async def _judge(self, report: Report, event: EventId, received_at_ms: int) -> Event | Answer:
        """The event with what is known of it before the ledger has seen it; or its refusal."""
        if report.problems:
            return _refused(*report.problems)
        try:
            kind = EventKind(report.kind)
        except ValueError:
            return _refused(Problem("$.kind", f"must be one of {', '.join(EventKind)}"))
        try:
            ticket = self._sealer.open(report.token, received_at_ms)
        except TicketRefused as error:
            return _refused(Problem("$.ticket", str(error)))
        outcome = await self._outcome(ticket, kind, received_at_ms)
        return Event(event, kind, ticket, outcome, received_at_ms, report.occurred_at_ms, report.view_ms)

    async def _outcome(self, ticket: Ticket, kind: EventKind, received_at_ms: int) -> Outcome:
        if received_at_ms > ticket.expires_at_ms:
            return Outcome.LATE
        if kind not in CONFIRMING:
            return rated(ticket, kind, counts=True)
        try:
            counts = await self._counters.confirm(ticket, received_at_ms, received_at_ms)
        except (CountersAway, TimeoutError):
            return Outcome.ACCEPTED
        return rated(ticket, kind, counts=counts)

    async def _conclude(self, event: Event, settled: Settled) -> Answer:
        """Tells the budgets and counters. A duplicate hides too: it may have come first just before PostgreSQL went away."""
        will_charge = (
            settled.outcome is Outcome.ACCEPTED is event.outcome and event.kind == event.ticket.billable
        )
        if (
            settled.outcome is Outcome.RECORDED or will_charge
        ):  # what waits for the counters is to be charged as well
            self._leases.captured(event.ticket.ticket, event.ticket.lease, event.ticket.price_micros)
        if event.kind in WITHHOLDING:
            self._hides.add(event.ticket.viewer_cap, event.ticket.advertiser, event.received_at_ms)
            await self._counters.hide(event.ticket, event.received_at_ms)
        overtaken = settled.outcome is Outcome.DUPLICATE and moment_of(settled.event) > event.received_at_ms
        aside = settled.outcome is Outcome.ACCEPTED is not event.outcome
        if (
            (overtaken or aside) and event.kind in CONFIRMING
        ):  # what was confirmed with our moment is, or may be, stored with a later one
            await self._counters.doubt(event.ticket)
        return Answer(settled.event, settled.outcome, settled.billed)


def rated(ticket: Ticket, kind: EventKind, *, counts: bool) -> Outcome:
    """What is known before the ledger speaks of an event that came in time."""
    if not counts:
        return Outcome.OVER_CAP
    return Outcome.RECORDED if kind == ticket.billable else Outcome.UNBILLED_KIND


def _refused(*problems: Problem) -> Answer:
    return Answer(None, Outcome.REFUSED, None, problems)
