"""GET /v1/reconciliation: what the newest nightly reconciliation found."""

from datetime import date

from aiohttp import web
from msgspec import Struct

from adserve.access.keys import Scope
from adserve.api.shapes import Moment
from adserve.domain.time import from_ms
from adserve.store.books import newest
from adserve.store.desk import Desk
from adserve.web.operations import Call, NoQuery, Operation
from adserve.web.problems import FORBIDDEN, NOT_FOUND, Problem
from adserve.web.replies import json_response

READERS = frozenset({Scope.OPERATOR, Scope.ANALYST})


class DifferenceShown(Struct, frozen=True):
    """`key` says what the figure is of; nothing stands there as null."""

    check: str
    key: list[str | None]
    derived: int
    booked: int


class ReconciliationShown(Struct, frozen=True):
    """Of `differing` figures `differences` has the first thousand. Events are there one by one from `first_raw_day` on,
    before it as closing entries."""

    started_at: Moment
    finished_at: Moment
    exact: bool
    first_raw_day: date | None
    events: int
    billed_micros: dict[str, int]
    compared: int
    differing: int
    differences: list[DifferenceShown]


class ReconciliationApi:
    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def get(self, call: Call[None, NoQuery]) -> web.StreamResponse:
        if call.caller.advertiser is not None:
            raise Problem(FORBIDDEN, "A reconciliation tells of other advertisers' money.")
        async with self._desk.transaction(None) as connection:
            night = await newest(connection)
        if night is None:
            raise Problem(NOT_FOUND, "No nightly reconciliation has run yet.")
        result = night.result
        return json_response(
            ReconciliationShown(
                from_ms(night.started_at_ms),
                from_ms(night.finished_at_ms),
                result.exact,
                result.first_raw_day,
                result.events,
                dict(result.billed_micros),
                result.compared,
                result.differing,
                [
                    DifferenceShown(each.check, list(each.key), each.derived, each.booked)
                    for each in result.differences
                ],
            )
        )

    def operations(self) -> list[Operation]:
        return [
            Operation(
                method="GET",
                path="/v1/reconciliation",
                id="getReconciliation",
                tag="analysts",
                summary="The newest nightly reconciliation",
                description="Every lease, balance and roll-up, derived again from the events; each difference to the micro.",
                handle=self.get,
                scopes=READERS,
                answer=ReconciliationShown,
                refusals=(404,),
            )
        ]
