"""GET /v1/reports/delivery: what was delivered and spent, grouped as the caller likes, as JSON or CSV."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from types import GenericAlias
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import msgspec
from aiohttp import web
from msgspec import UNSET, Meta, Struct, UnsetType

from adserve.api.reports import READERS, ROWS_MAX
from adserve.api.shapes import Between, Id, Moment, Money, TimeZone, check_time_zone, span
from adserve.domain.ids import CATALOGUE_ID_MAX
from adserve.domain.targeting import Country
from adserve.domain.time import HOUR_MS, Clock, to_ms
from adserve.reporting.delivery import made_of_hours
from adserve.store.delivery import COLUMNS, METRICS, OF_VIEWERS, Question, report
from adserve.store.desk import Desk
from adserve.store.errors import Unanswerable
from adserve.store.setup import Row
from adserve.web.operations import Call, Operation
from adserve.web.paging import cut, decode_cursor, next_link
from adserve.web.problems import invalid
from adserve.web.replies import JSON, Page, json_response
from adserve.web.tables import CSV, csv_lines, preferred

DAYS_MAX = 400
DAYS_DEFAULT = 7
CURSOR_CHARS_MAX = 2_000

Names = Annotated[str, Meta(max_length=200, description="separated by commas")]
Text = Annotated[str, Meta(max_length=64)]

_FILTERS = tuple(name for name in COLUMNS if name not in ("day", "hour"))
_TYPES: dict[str, Any] = {
    "date": date,
    "timestamptz": Annotated[datetime, Meta(tz=True)],
    "bigint": Annotated[int, Meta(ge=0, le=CATALOGUE_ID_MAX)],
    "integer": Annotated[int, Meta(ge=0, lt=2**31)],
    "text": str,
}


class DeliveryQuery(Between, frozen=True, forbid_unknown_fields=True):
    """`from` and `to` are moments of receipt; without them, the last week. `group` names what rows are made for, in the order in
    which they come; days and hours are those of `time_zone`. Without `metrics`, all but `reach` and `frequency`, which are
    counted event by event."""

    group: Names = "day"
    metrics: Names = ",".join(name for name in METRICS if name not in OF_VIEWERS)
    time_zone: TimeZone = "UTC"
    advertiser: Id | None = None
    campaign: Id | None = None
    ad: Id | None = None
    creative: Id | None = None
    country: Country | None = None
    platform: Text | None = None
    position: Annotated[int, Meta(ge=0, lt=2**31)] | None = None
    arm: Text | None = None
    model: Text | None = None
    surface: Text | None = None
    limit: Annotated[int, Meta(ge=1, le=ROWS_MAX)] = 100
    after: (
        Annotated[str, Meta(max_length=CURSOR_CHARS_MAX, description="`next` of the page before")] | None
    ) = None


class DeliveryRow(Struct, frozen=True, kw_only=True):
    """What was asked for, of one group and currency. An impression, view, click or hide counts unless it is late, over its cap or
    invalid; `spend` is what was charged, before later credits. `reach` is how many viewers the impressions had: a viewer counts
    again in another month (UTC), and not once erased; `frequency`, impressions by each of them. Null is what is not known:
    `requests` wherever the funnel does not count it, which is for each campaign by hours."""

    day: str | UnsetType = UNSET
    hour: Moment | UnsetType = UNSET
    campaign: int | UnsetType = UNSET
    ad: int | UnsetType = UNSET
    creative: int | UnsetType = UNSET
    advertiser: int | UnsetType = UNSET
    country: str | UnsetType = UNSET
    platform: str | UnsetType = UNSET
    position: int | UnsetType = UNSET
    arm: str | UnsetType = UNSET
    model: str | UnsetType = UNSET
    surface: str | UnsetType = UNSET
    currency: str
    requests: int | UnsetType | None = UNSET
    impressions: int | UnsetType = UNSET
    views: int | UnsetType = UNSET
    clicks: int | UnsetType = UNSET
    hides: int | UnsetType = UNSET
    spend: Money | UnsetType = UNSET
    reach: int | UnsetType | None = UNSET
    frequency: float | UnsetType | None = UNSET


class Delivery:
    """Staff read through `desk` as analysts; an advertiser's key sees its own deliveries alone."""

    def __init__(self, desk: Desk, clock: Clock) -> None:
        self._desk = desk
        self._clock = clock

    async def report(self, call: Call[None, DeliveryQuery]) -> web.StreamResponse:
        question = _question(call.query, self._clock())
        async with self._desk.transaction(call.caller.advertiser) as connection:
            try:
                rows = await report(connection, question)
            except Unanswerable as error:
                raise invalid("?from", str(error)) from error
        shown, following = cut(
            rows, call.query.limit, lambda row: [row[name] for name in (*question.groups, "currency")]
        )
        if preferred(call.request.headers.get("Accept", ""), (CSV, JSON)) == CSV:
            return _table(call.request, question, shown, following)
        return json_response(Page([_encode(row) for row in shown], following))

    def operations(self) -> list[Operation]:
        return [
            Operation(
                method="GET",
                path="/v1/reports/delivery",
                id="reportDelivery",
                tag="analysts",
                summary="What was delivered and spent, grouped as you like",
                description=f"`group` names any of {', '.join(COLUMNS)}; `metrics` any of {', '.join(METRICS)}. As CSV, `Link` "
                "has the next page.",
                handle=self.report,
                scopes=READERS,
                query=DeliveryQuery,
                answer=Page[DeliveryRow],
                content_types=(JSON, CSV),
            )
        ]


def _question(query: DeliveryQuery, now_ms: int) -> Question:
    check_time_zone("?time_zone", query.time_zone)
    groups, metrics = _named("group", query.group, COLUMNS), _named("metrics", query.metrics, METRICS)
    if not metrics:
        raise invalid("?metrics", "names nothing")
    start_ms, end_ms = span(query, now_ms, step_ms=HOUR_MS, default=DAYS_DEFAULT * 24, most=DAYS_MAX * 24)
    if query.from_ is not None:
        start_ms = to_ms(query.from_)
    if query.to is not None:
        end_ms = to_ms(query.to)
    given = {name: getattr(query, name) for name in _FILTERS}
    return Question(
        groups,
        metrics,
        {name: value for name, value in given.items() if value is not None},
        start_ms,
        end_ms,
        query.time_zone,
        made_of_hours(start_ms, end_ms, ZoneInfo(query.time_zone)),
        None if query.after is None else _after(query.after, groups),
        query.limit + 1,
    )


def _named(parameter: str, text: str, known: Mapping[str, object]) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",")) if text else ()
    for name in names:
        if name not in known:
            raise invalid(f"?{parameter}", f"names {name!r}, which is none of {', '.join(known)}")
    if len(set(names)) < len(names):
        raise invalid(f"?{parameter}", "names something twice")
    return names


def _after(cursor: str, groups: Sequence[str]) -> Sequence[Any]:
    values = (*(_TYPES[COLUMNS[name].type] for name in groups), str)
    decoder: msgspec.json.Decoder[Sequence[Any]] = msgspec.json.Decoder(GenericAlias(tuple, values))
    return decode_cursor(cursor, decoder)


def _encode(row: Row) -> DeliveryRow:
    told = dict(row)
    if "day" in told:
        told["day"] = told["day"].isoformat()
    if "spend" in told:
        told["spend"] = Money(told["spend"], told["currency"])
    return DeliveryRow(**told)


def _table(
    request: web.Request, question: Question, rows: Iterable[Row], following: str | None
) -> web.Response:
    names = (*question.groups, "currency", *question.metrics)
    head = ["spend_micros" if name == "spend" else name for name in names]
    headers = {"Cache-Control": "no-store"}
    if following is not None:
        headers["Link"] = next_link(request, following)
    body = csv_lines([head, *([row[name] for name in names] for row in rows)])
    return web.Response(body=body, content_type=CSV, charset="utf-8", headers=headers)
