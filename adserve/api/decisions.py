"""GET /v1/decisions/{decision}: a recorded decision, made again and explained."""

from typing import Any
from uuid import UUID

from aiohttp import web
from msgspec import Struct

from adserve.access.keys import Scope
from adserve.api.shapes import Moment
from adserve.domain.slots import NoFill
from adserve.domain.time import from_ms
from adserve.selection.recording import RecordRefused, Replayed, explain_again
from adserve.store.decisions import replayed
from adserve.store.desk import Desk
from adserve.store.errors import Missing
from adserve.web.operations import Call, NoQuery, Operation
from adserve.web.problems import FORBIDDEN, Problem
from adserve.web.replies import json_response

READERS = frozenset({Scope.OPERATOR, Scope.ANALYST})


class PlacementMade(Struct, frozen=True):
    ad: int
    campaign: int
    position: int
    price_micros: int
    currency: str
    ticket: UUID


class DecisionMade(Struct, frozen=True):
    """`same` says whether the decision, made again from what was recorded, came out as it did then; else `differences`
    names what did not. The explanation is that of a slot request with `explain`."""

    decision: UUID
    decided_at: Moment
    surface: str
    country: str | None
    model: str
    catalogue_version: int
    placements: list[PlacementMade]
    no_fill: NoFill | None
    same: bool
    differences: list[str]
    explanation: dict[str, Any]


def shown(replay: Replayed) -> DecisionMade:
    made = replay.made
    tickets = [given.ticket for given in made.awards]
    return DecisionMade(
        made.decision,
        from_ms(made.now_ms),
        made.ask.surface,
        made.ask.context.country,
        made.view.rates.name,
        made.view.snapshot.version,
        [
            PlacementMade(
                ticket.ad,
                ticket.campaign,
                ticket.position,
                ticket.price_micros,
                ticket.currency,
                ticket.ticket,
            )
            for ticket in tickets
        ],
        made.no_fill,
        not replay.differences,
        replay.differences,
        explain_again(replay),
    )


class Decisions:
    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def get(self, call: Call[None, NoQuery]) -> web.StreamResponse:
        if call.caller.advertiser is not None:
            raise Problem(FORBIDDEN, "A decision tells of other advertisers' ads.")
        decision = UUID(call.request.match_info["decision"])
        async with self._desk.transaction(None) as connection:
            try:
                return json_response(shown(await replayed(connection, decision)))
            except RecordRefused as error:
                raise Missing(str(error)) from error

    def operations(self) -> list[Operation]:
        return [
            Operation(
                method="GET",
                path="/v1/decisions/{decision}",
                id="getDecision",
                tag="analysts",
                summary="A recorded decision, made again and explained",
                description="Recorded are those that were to be explained, and a sample of all others.",
                handle=self.get,
                scopes=READERS,
                answer=DecisionMade,
            )
        ]
