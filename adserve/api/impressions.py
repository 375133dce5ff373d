"""GET /v1/impressions: the log, as JSON, NDJSON or CSV. A page has the same rows and cursor in each of them."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

import msgspec
from aiohttp import web
from msgspec import Meta, Struct

from adserve.access.keys import Scope
from adserve.api.shapes import Between, Id, Moment, Money
from adserve.domain.events import EventKind, Outcome
from adserve.domain.targeting import Country
from adserve.domain.traffic import Reason
from adserve.store.desk import Desk
from adserve.store.errors import Unanswerable
from adserve.store.impressions import Filters, Place, page
from adserve.store.setup import Row
from adserve.web.operations import Call, Operation
from adserve.web.paging import Cursor, cut, decode_cursor, next_link
from adserve.web.problems import invalid
from adserve.web.replies import JSON, Page, json_response
from adserve.web.tables import CSV, csv_lines, preferred

READERS = frozenset({Scope.ANALYST, Scope.ADVERTISER})
ROWS_MAX = 10_000
ROWS_A_CHUNK = 500

NDJSON = "application/x-ndjson"

Text = Annotated[str, Meta(max_length=64)]


class Wanted(Between, frozen=True, forbid_unknown_fields=True):
    """`from` is included, `to` is not; both are moments of receipt. With `without_impression`, only events of tickets
    whose impression never came: `kind=click&without_impression=true`."""

    kind: Literal["impression", "view", "click", "hide", "report", "complete", "any"] = "impression"
    advertiser: Id | None = None
    campaign: Id | None = None
    ad: Id | None = None
    country: Country | None = None
    platform: Text | None = None
    surface: Text | None = None
    outcome: Outcome | None = None
    invalid_reason: Reason | None = None
    without_impression: bool = False

    def filters(self) -> Filters:
        return Filters(
            None if self.kind == "any" else self.kind,
            self.from_,
            self.to,
            self.advertiser,
            self.campaign,
            self.ad,
            self.country,
            self.platform,
            self.surface,
            self.outcome,
            self.invalid_reason,
            self.without_impression,
        )


class ImpressionsQuery(Wanted, frozen=True, forbid_unknown_fields=True):
    limit: Annotated[int, Meta(ge=1, le=ROWS_MAX)] = 100
    after: Cursor | None = None


class LoggedEvent(Struct, frozen=True, kw_only=True):
    event: UUID
    ticket: UUID
    decision: UUID
    kind: EventKind
    outcome: Outcome
    received_at: Moment
    occurred_at: Moment | None
    issued_at: Moment
    advertiser: int
    campaign: int
    ad: int
    creative: int
    revision: int
    surface: str
    country: str
    platform: str
    position: int
    view_ms: int | None
    price: Money
    billed: Money
    billable: str
    bid_model: str
    budget_day: str
    model: str
    propensity: float
    catalogue_version: int
    rules_version: int
    arm: str
    invalid_reason: Reason | None
    traffic_rules: int | None


_MONEY = ("price", "billed")
_PLAIN = tuple(name for name in LoggedEvent.__struct_fields__ if name not in (*_MONEY, "budget_day"))
COLUMNS = (*_PLAIN, "budget_day", "price_micros", "billed_micros", "currency")

_position = msgspec.json.Decoder(tuple[Annotated[datetime, Meta(tz=True)], UUID])


class Impressions:
    """Staff read through `desk` as analysts; an advertiser's key sees its own rows alone."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def page(self, call: Call[None, ImpressionsQuery]) -> web.StreamResponse:
        query = call.query
        shown, following = cut(
            await self._rows(call), query.limit, lambda row: (row["received_at"], row["event"])
        )
        kind = _preferred(call.request.headers.get("Accept", ""))
        if kind is None:
            return json_response(Page([_encode(row) for row in shown], following))
        return await _lines(call.request, kind, shown, following)

    async def _rows(self, call: Call[None, ImpressionsQuery]) -> Sequence[Row]:
        query = call.query
        query.check()
        after = None if query.after is None else Place(*decode_cursor(query.after, _position))
        async with self._desk.transaction(call.caller.advertiser) as connection:
            try:
                return await page(connection, query.filters(), after, query.limit + 1)
            except Unanswerable as error:
                raise invalid("?from", str(error)) from error

    def operations(self) -> list[Operation]:
        return [
            Operation(
                method="GET",
                path="/v1/impressions",
                id="listImpressions",
                tag="analysts",
                summary="The log of impressions and other events",
                description="In the order of receipt. As NDJSON or CSV, `Link` has the next page.",
                handle=self.page,
                scopes=READERS,
                query=ImpressionsQuery,
                answer=Page[LoggedEvent],
                content_types=("application/json", NDJSON, CSV),
            )
        ]


def _preferred(accept: str) -> str | None:
    """NDJSON or CSV where the caller asks for one of them, the first that it names; None for JSON."""
    kind = preferred(accept, (NDJSON, CSV, JSON))
    return None if kind == JSON else kind


async def _lines(request: web.Request, kind: str, rows: Sequence[Row], following: str | None) -> web.Response:
    """With its length, by which whoever got less knows it."""
    headers = {"Cache-Control": "no-store"}
    if following is not None:
        headers["Link"] = next_link(request, following)
    parts = [HEADS[kind]]
    for chunk in _chunks(rows):
        parts.append(LINES[kind](chunk))
        await asyncio.sleep(0)  # others have their turns
    return web.Response(body=b"".join(parts), content_type=kind, charset="utf-8", headers=headers)


def _ndjson(rows: Sequence[Row]) -> bytes:
    return msgspec.json.Encoder().encode_lines([_encode(row) for row in rows])


def _csv(rows: Sequence[Row]) -> bytes:
    return csv_lines([row[name] for name in COLUMNS] for row in rows)


LINES: dict[str, Callable[[Sequence[Row]], bytes]] = {NDJSON: _ndjson, CSV: _csv}
HEADS = {NDJSON: b"", CSV: csv_lines([COLUMNS])}
"""What comes before the lines of a table."""


def _chunks(rows: Sequence[Row]) -> Iterable[Sequence[Row]]:
    return (rows[start : start + ROWS_A_CHUNK] for start in range(0, len(rows), ROWS_A_CHUNK))


def _encode(row: Row) -> LoggedEvent:
    return LoggedEvent(
        price=Money(row["price_micros"], row["currency"]),
        billed=Money(row["billed_micros"], row["currency"]),
        budget_day=row["budget_day"].isoformat(),
        **{name: row[name] for name in _PLAIN},
    )
