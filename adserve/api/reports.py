"""GET /v1/reports/funnel: how far requests got with each campaign, hour by hour."""

from datetime import datetime
from typing import Annotated

import msgspec
from aiohttp import web
from msgspec import Meta, Struct

from adserve.access.keys import Scope
from adserve.api.shapes import Between, Id, Moment, span
from adserve.domain.ids import CATALOGUE_ID_MAX
from adserve.domain.time import HOUR_MS, Clock, from_ms, to_ms
from adserve.reporting.funnel import Coverage, coverage
from adserve.store import funnel
from adserve.store.desk import Desk
from adserve.store.funnel import Filters, Place
from adserve.web.operations import Call, Operation
from adserve.web.paging import Cursor, cut, decode_cursor
from adserve.web.replies import json_response

READERS = frozenset({Scope.ANALYST, Scope.ADVERTISER})
ROWS_MAX = 5_000
HOURS_MAX = 24 * 92
HOURS_DEFAULT = 24

_position = msgspec.json.Decoder(
    tuple[Annotated[datetime, Meta(tz=True)], Annotated[int, Meta(ge=0, le=CATALOGUE_ID_MAX)]]
)


class FunnelQuery(Between, frozen=True, forbid_unknown_fields=True):
    """Whole hours in UTC: that of `from` is the first, that of `to` is the first one not told any more. Without them, the
    last day up to now."""

    campaign: Id | None = None
    limit: Annotated[int, Meta(ge=1, le=ROWS_MAX)] = 100
    after: Cursor | None = None


class FunnelRow(Struct, frozen=True):
    """Of the requests that looked for ads while the campaign was live (`eligible`), `targeted` had a viewer whom it wants.
    Of its ads that were then reached (`ranked`), so many held their price (`in_budget`), broke no rule of the viewer
    (`under_cap`) and were placed. These are null where only the ledger knows of the hour."""

    hour: Moment
    campaign: int
    advertiser: int
    eligible: int | None
    targeted: int | None
    ranked: int | None
    in_budget: int | None
    under_cap: int | None
    placed: int | None
    impressions: int
    clicks: int


class GapShown(Struct, frozen=True, rename={"from_": "from"}):
    """`to` is when counting began again; null where it has not."""

    from_: Moment
    to: Moment | None


class CoverageShown(Struct, frozen=True):
    """Of how much of the hour some process counted, and when one lost what it counted, while others went on or not."""

    hour: Moment
    covered_s: float
    gaps: list[GapShown]


class FunnelPage(Struct, frozen=True):
    """`next` is null on the last page. What was counted up to `counted_to` is in the figures; null when nothing ever was.
    `coverage` tells of each hour that `items` are of."""

    items: list[FunnelRow]
    next: str | None
    counted_to: Moment | None
    coverage: list[CoverageShown]


class Reports:
    """Staff read through `desk` as analysts; an advertiser's key sees its own campaigns alone."""

    def __init__(self, desk: Desk, clock: Clock) -> None:
        self._desk = desk
        self._clock = clock

    async def funnel(self, call: Call[None, FunnelQuery]) -> web.StreamResponse:
        query, now_ms = call.query, self._clock()
        start_ms, end_ms = span(query, now_ms, step_ms=HOUR_MS, default=HOURS_DEFAULT, most=HOURS_MAX)
        start, end = from_ms(start_ms), from_ms(end_ms)
        after = Place(start, 0) if query.after is None else Place(*decode_cursor(query.after, _position))
        filters = Filters(start, end, query.campaign)
        async with self._desk.transaction(call.caller.advertiser) as connection:
            rows = await funnel.page(connection, filters, after, query.limit + 1)
            spans = await funnel.spans(connection, start)
            counted_to = await funnel.counted_to(connection)
        shown, following = cut(rows, query.limit, lambda row: (row["hour"], row["campaign"]))
        hours_ms = list(dict.fromkeys(to_ms(row["hour"]) for row in shown))
        return json_response(
            FunnelPage(
                [FunnelRow(**row) for row in shown],
                following,
                counted_to,
                list(map(_shown, coverage(spans, hours_ms, now_ms))),
            )
        )

    def operations(self) -> list[Operation]:
        return [
            Operation(
                method="GET",
                path="/v1/reports/funnel",
                id="reportFunnel",
                tag="analysts",
                summary="How far requests got with each campaign, by hour",
                description="A time of which counts were lost is told as a gap. Figures are a minute behind.",
                handle=self.funnel,
                scopes=READERS,
                query=FunnelQuery,
                answer=FunnelPage,
            )
        ]


def _shown(of_hour: Coverage) -> CoverageShown:
    gaps = [
        GapShown(from_ms(gap.from_ms), None if gap.to_ms is None else from_ms(gap.to_ms))
        for gap in of_hour.gaps
    ]
    return CoverageShown(from_ms(of_hour.hour_ms), of_hour.covered_ms / 1_000, gaps)
