"""/v1/events: what became of placements, as the feed service reports it; in order, each in its place."""

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated

import msgspec
import orjson
from aiohttp import web
from msgspec import UNSET, Meta, Struct, UnsetType

from adserve.access.keys import Scope
from adserve.api.shapes import Moment, Money, check_address, check_moment
from adserve.domain import money
from adserve.domain.events import EventKind, Outcome
from adserve.domain.time import Clock, to_ms
from adserve.domain.traffic import Source
from adserve.metering import intake
from adserve.metering.errors import RecorderUnavailable, TicketRefused
from adserve.metering.intake import Intake, Report
from adserve.metering.tickets import Sealer
from adserve.store.spools import EventLog
from adserve.web.auth import Auth
from adserve.web.bodies import decode_json, field_error, without_lone_surrogates
from adserve.web.operations import Call, NoQuery, Operation
from adserve.web.problems import NOT_FOUND, FieldError, Problem
from adserve.web.replies import JSON, json_response

FEED = frozenset({Scope.FEED})
EVENTS_MAX = 1_000
VIEW_MS_MAX = 86_400_000
AGENT_CHARS_MAX = 8_192


class EventReport(Struct, frozen=True, forbid_unknown_fields=True):
    """`occurred_at` is the client's clock: kept where it can be true, never billed by. `view_ms` is how long it was seen.

    `user_agent`, `address` and `device` (an id of the caller's own) are the client's: traffic is judged by them, and none of
    them is stored.
    """

    ticket: Annotated[str, Meta(min_length=1, max_length=4_096)]
    kind: EventKind
    occurred_at: Moment | None = None
    view_ms: Annotated[int, Meta(ge=0, le=VIEW_MS_MAX)] | None = None
    user_agent: Annotated[str, Meta(max_length=AGENT_CHARS_MAX)] | None = None
    address: Annotated[str, Meta(max_length=64, description="IPv4 or IPv6")] | None = None
    device: Annotated[str, Meta(min_length=1, max_length=256)] | None = None


class EventReports(Struct, frozen=True, forbid_unknown_fields=True):
    events: Annotated[list[EventReport], Meta(min_length=1, max_length=EVENTS_MAX)]


class _Envelope(Struct, frozen=True, forbid_unknown_fields=True):
    events: Annotated[list[msgspec.Raw], Meta(min_length=1, max_length=EVENTS_MAX)]


class EventResult(Struct, frozen=True):
    """`event` is null when it is refused; `billed` when nothing is charged, or it is not known yet."""

    event: str | None
    outcome: Outcome
    billed: Money | None
    errors: list[FieldError] | UnsetType = UNSET


class EventResults(Struct, frozen=True):
    results: list[EventResult]


class KnownEvent(Struct, frozen=True):
    event: str
    kind: EventKind
    outcome: Outcome
    billed: Money | None


class TicketEvents(Struct, frozen=True):
    events: list[KnownEvent]


_whole = msgspec.json.Decoder(EventReports)
_envelope = msgspec.json.Decoder(_Envelope)
_item = msgspec.json.Decoder(EventReport)


def decode_reports(raw: bytes) -> list[Report]:
    """All at once; and only when that fails one by one, so that a bad event spoils no other."""
    try:
        return [_report(event) for event in _whole.decode(raw).events]
    except (ValueError, RecursionError, Problem):
        return list(_decode_one_by_one(raw))


def _decode_one_by_one(raw: bytes) -> Iterator[Report]:
    for item in decode_json(_envelope, without_lone_surrogates(raw)).events:
        try:
            yield _report(_item.decode(item))
        except Problem as problem:
            yield _refused(problem.errors[0])
        except (ValueError, RecursionError) as error:
            yield _refused(field_error(error))


def _report(event: EventReport) -> Report:
    source = _source(event)
    return Report(event.ticket, event.kind, _occurred_ms(event.occurred_at), event.view_ms, source=source)


def _occurred_ms(moment: datetime | None) -> int | None:
    if moment is None:
        return None
    try:
        check_moment("$.occurred_at", moment)
    except Problem:
        return None  # a phone's clock that is decades off: the event is as good without it
    return to_ms(moment)


def _source(event: EventReport) -> Source | None:
    if event.user_agent is event.address is event.device is None:
        return None
    if event.address is not None:
        check_address("$.address", event.address)
    return Source(event.user_agent, event.address, event.device)


def _refused(wrong: FieldError) -> Report:
    return Report("", "", problems=(intake.Problem(wrong.field, wrong.reason),))


class EventsApi:
    def __init__(self, intake: Intake, events: EventLog, sealer: Sealer, clock: Clock) -> None:
        self._intake = intake
        self._events = events
        self._sealer = sealer
        self._clock = clock

    async def report(self, call: Call[list[Report], NoQuery]) -> web.StreamResponse:
        return web.Response(body=await self._report(call.body), content_type=JSON)

    async def report_plainly(self, auth: Auth, secret: str, raw: bytes, _waited_ms: int) -> bytes | None:
        """The same without aiohttp: the body of an answer, or None where `report` refuses."""
        try:
            auth.authorise(secret, FEED)
            return await self._report(decode_reports(raw))
        except (Problem, RecorderUnavailable):
            return None

    async def of_ticket(self, call: Call[None, NoQuery]) -> web.StreamResponse:
        try:
            ticket = self._sealer.open(call.request.match_info["ticket"], self._clock())
        except TicketRefused as error:
            raise Problem(NOT_FOUND, str(error)) from error
        kept = await self._events.of_ticket(ticket)
        events = [KnownEvent(str(of.event), of.kind, of.outcome, _money(of.billed)) for of in kept]
        return json_response(TicketEvents(events))

    async def _report(self, reports: list[Report]) -> bytes:
        answers = await self._intake.take(reports, self._clock())
        return orjson.dumps({"results": [_encode_answer(answer) for answer in answers]})

    def operations(self) -> list[Operation]:
        return [
            Operation(
                method="POST",
                path="/v1/events",
                id="reportEvents",
                tag="feed service",
                summary="Report what became of placements",
                description="Answers when everything is durable, in order. A bad event is refused in its place.",
                handle=self.report,
                scopes=FEED,
                body=EventReports,
                decode=decode_reports,
                answer=EventResults,
                refusals=(503,),
                example={"events": [{"ticket": "AQ...", "kind": "impression", "view_ms": 1_200}]},
            ),
            Operation(
                method="GET",
                path="/v1/events/{ticket}",
                id="getTicketEvents",
                tag="feed service",
                summary="The final outcome of each kind of event of a ticket",
                description="What is not rated yet is `accepted`. While PostgreSQL is away, that is all that is known.",
                handle=self.of_ticket,
                scopes=FEED,
                answer=TicketEvents,
                refusals=(503,),
            ),
        ]


def _encode_answer(answer: intake.Answer) -> dict[str, object]:
    billed = answer.billed
    encoded: dict[str, object] = {
        "event": answer.event,
        "outcome": answer.outcome,
        "billed": None if billed is None else {"micros": billed.micros, "currency": billed.currency},
    }
    if answer.errors:
        encoded["errors"] = [{"field": wrong.field, "reason": wrong.reason} for wrong in answer.errors]
    return encoded


def _money(billed: money.Money | None) -> Money | None:
    return None if billed is None else Money(billed.micros, billed.currency)
