"""GET /v1/charges/{event}: what an event was charged, why, and where the money went."""

from collections.abc import Callable
from datetime import date
from typing import Any
from uuid import UUID

from aiohttp import web
from msgspec import Struct
from msgspec.structs import replace

from adserve.access.keys import Scope
from adserve.accounting.rating import RatedEvent, rate_again
from adserve.api.shapes import Moment
from adserve.domain.events import EventKind, Outcome
from adserve.domain.time import to_ms
from adserve.selection.priced import Pricing, pricing_of
from adserve.selection.recording import RecordRefused
from adserve.store.charges import Charged, charged
from adserve.store.decisions import replayed
from adserve.store.desk import Connection, Desk
from adserve.store.errors import Missing
from adserve.store.setup import Row
from adserve.web.operations import Call, NoQuery, Operation
from adserve.web.replies import json_response

READERS = frozenset({Scope.ANALYST, Scope.ADVERTISER, Scope.OPERATOR})


class Signed(Struct, frozen=True):
    micros: int
    currency: str


class TicketFacts(Struct, frozen=True):
    """What was sealed when the ad was placed, as far as a charge hangs on it."""

    ticket: UUID
    decision: UUID
    advertiser: int
    campaign: int
    ad: int
    creative: int
    revision: int
    surface: str
    country: str
    platform: str
    position: int
    issued_at: Moment
    expires_at: Moment
    bid_model: str
    billable: str
    price: Signed
    lease: int
    budget_day: date


class Versions(Struct, frozen=True):
    rules: int
    catalogue: int
    model: str


class RatingShown(Struct, frozen=True):
    """The event, rated again from what is stored of it. `same` says whether outcome, charge and, where its decision is
    recorded, price come out as they did then."""

    outcome: Outcome
    billed: Signed
    reason: str
    same: bool


class LeaseShown(Struct, frozen=True):
    id: int
    budget_day: date
    granted: Signed
    captured: Signed
    opened_at: Moment
    closed_at: Moment | None


class PostingShown(Struct, frozen=True):
    """Of one batch: this charge, and the others that it made to the same lease."""

    transaction: int
    account: str
    amount: Signed


class ChargeShown(Struct, frozen=True):
    """`pricing` is there when the decision was recorded; an advertiser is not told whose the runner-up was."""

    event: UUID
    kind: EventKind
    outcome: Outcome
    billed: Signed
    received_at: Moment
    occurred_at: Moment | None
    ticket: TicketFacts
    versions: Versions
    rating: RatingShown
    pricing: Pricing | None
    lease: LeaseShown | None
    postings: list[PostingShown]


def shown(charge: Charged, pricing: Pricing | None) -> ChargeShown:
    row = charge.event
    rated = RatedEvent(
        EventKind(row["kind"]),
        Outcome(row["outcome"]),
        row["billed_micros"],
        row["billable"],
        row["price_micros"],
        to_ms(row["received_at"]),
        to_ms(row["expires_at"]),
    )
    again = rate_again(rated)
    same = (again.outcome, again.billed_micros) == (rated.outcome, rated.billed_micros)
    priced_alike = pricing is None or pricing.price_micros == rated.price_micros

    def money(micros: int) -> Signed:
        return Signed(micros, row["currency"])

    return ChargeShown(
        row["event_id"],
        rated.kind,
        rated.outcome,
        money(rated.billed_micros),
        row["received_at"],
        row["occurred_at"],
        _ticket(row, money(rated.price_micros)),
        Versions(row["rules_version"], row["catalogue_version"], row["model"]),
        RatingShown(again.outcome, money(again.billed_micros), again.reason, same and priced_alike),
        pricing,
        None if charge.lease is None else _lease(charge.lease, money),
        [
            PostingShown(each["transaction_id"], each["account"], Signed(each["micros"], each["currency"]))
            for each in charge.postings
        ],
    )


def _lease(lease: Row, money: Callable[[int], Signed]) -> LeaseShown:
    return LeaseShown(
        lease["id"],
        lease["budget_day"],
        money(lease["granted_micros"]),
        money(lease["captured_micros"]),
        lease["opened_at"],
        lease["closed_at"],
    )


def _ticket(row: Row, price: Signed) -> TicketFacts:
    facts: dict[str, Any] = {"price": price}
    for name in TicketFacts.__struct_fields__:
        if name not in facts:
            facts[name] = row[name] if name in row else row[f"{name}_id"]
    return TicketFacts(**facts)


async def pricing(connection: Connection, charge: Charged) -> Pricing | None:
    """Needs a connection that may read recorded decisions."""
    try:
        again = await replayed(connection, charge.event["decision_id"])
    except (Missing, RecordRefused):
        return None
    return pricing_of(again.made, charge.event["ticket_id"])


class Charges:
    """Staff read through `desk` as analysts; an advertiser's key sees its own charges alone."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def get(self, call: Call[None, NoQuery]) -> web.StreamResponse:
        advertiser = call.caller.advertiser
        async with self._desk.transaction(advertiser) as connection:
            charge = await charged(connection, UUID(call.request.match_info["event"]))
        async with self._desk.transaction(None) as connection:
            priced = await pricing(connection, charge)
        if advertiser is not None and priced is not None and priced.runner_up is not None:
            nameless = replace(priced.runner_up, ad=None, advertiser=None)
            priced = replace(priced, runner_up=nameless)
        return json_response(shown(charge, priced))

    def operations(self) -> list[Operation]:
        return [
            Operation(
                method="GET",
                path="/v1/charges/{event}",
                id="getCharge",
                tag="analysts",
                summary="A charge, explained and rated again",
                description="What the ticket sealed, how the price came about where its decision is recorded, the lease and "
                "the postings.",
                handle=self.get,
                scopes=READERS,
                answer=ChargeShown,
            )
        ]
