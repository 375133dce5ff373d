"""/v1/traffic-rules: what makes traffic invalid, in every version; /v1/reports/traffic: gross, invalid and net."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Annotated

import msgspec
from aiohttp import web
from msgspec import Meta, Struct

from adserve.api.reports import READERS
from adserve.api.resource import OPERATORS
from adserve.api.shapes import Between, Id, Moment, Money, span
from adserve.domain.ids import CATALOGUE_ID_MAX
from adserve.domain.time import DAY_MS, Clock, from_ms
from adserve.domain.traffic import Rules
from adserve.metering.origins import CRAWLERS, CRAWLERS_VERSION
from adserve.store import traffic
from adserve.store.desk import Connection, Desk
from adserve.store.idempotency import Answer
from adserve.store.setup import Row
from adserve.web.idempotency import once
from adserve.web.operations import Call, Operation
from adserve.web.paging import Cursor, PageQuery, cut, decode_cursor
from adserve.web.problems import invalid
from adserve.web.replies import Page, answer_response, created, json_response

VERSION_MAX = 2**31 - 1
ROWS_MAX = 5_000
DAYS_MAX = 400
DAYS_DEFAULT = 30

_version = msgspec.json.Decoder(tuple[Annotated[int, Meta(ge=1, le=VERSION_MAX)]])
_position = msgspec.json.Decoder(
    tuple[Annotated[datetime, Meta(tz=True)], Annotated[int, Meta(ge=0, le=CATALOGUE_ID_MAX)]]
)


class RulesVersion(Struct, frozen=True):
    """`revision` counts what operators said; `crawlers` is the version of the list of crawlers, `networks` the digest of the list
    of data centres' networks, empty without one."""

    version: int
    revision: int
    rules: Rules
    crawlers: str
    networks: str
    made_at: Moment


class TrafficQuery(Between, frozen=True, forbid_unknown_fields=True):
    """Whole days in UTC, by receipt: that of `from` is the first, that of `to` is the first one not told any more. Without them
    the last month up to now."""

    campaign: Id | None = None
    limit: Annotated[int, Meta(ge=1, le=ROWS_MAX)] = 100
    after: Cursor | None = None


class TrafficRow(Struct, frozen=True):
    """`gross` is what valid and invalid traffic would have been charged together, `invalid` what was not charged for being
    invalid, `net` what was charged: gross - invalid = net. Later credits are on the invoices."""

    day: str
    campaign: int
    advertiser: int
    events: int
    invalid_events: int
    gross: Money
    invalid: Money
    net: Money


class TrafficApi:
    """`networks` answers the digest of the list that is in force here."""

    def __init__(self, staff: Desk, analysts: Desk, networks: Callable[[], str], clock: Clock) -> None:
        self._staff = staff
        self._analysts = analysts
        self._networks = networks
        self._clock = clock

    async def rules(self, call: Call[None, PageQuery]) -> web.StreamResponse:
        query = call.query
        before = VERSION_MAX if query.after is None else decode_cursor(query.after, _version)[0]
        async with self._staff.transaction(None) as connection:
            versions = await traffic.page(connection, before, query.limit + 1)
        shown, following = cut(versions, query.limit, lambda version: (version.version,))
        return json_response(Page([RulesVersion(*version) for version in shown], following))

    async def revise(self, call: Call[Rules, PageQuery]) -> web.StreamResponse:
        for place, name in enumerate(call.body.clients_allowed):
            if name not in CRAWLERS:
                raise invalid(f"$.clients_allowed[{place}]", "is not a name in the list of crawlers")
        async with self._staff.transaction(None) as connection:
            answer = await once(connection, call, partial(self._revise, connection, call.body))
        return answer_response(answer)

    async def _revise(self, connection: Connection, rules: Rules) -> Answer:
        version = await traffic.revise(connection, rules, CRAWLERS_VERSION, self._networks(), self._clock())
        return created(RulesVersion(*version), "/v1/traffic-rules")

    async def report(self, call: Call[None, TrafficQuery]) -> web.StreamResponse:
        query = call.query
        start_ms, end_ms = span(query, self._clock(), step_ms=DAY_MS, default=DAYS_DEFAULT, most=DAYS_MAX)
        days = from_ms(start_ms), from_ms(end_ms)
        after = (days[0], 0) if query.after is None else decode_cursor(query.after, _position)
        async with self._analysts.transaction(call.caller.advertiser) as connection:
            rows = await traffic.report(connection, days, query.campaign, after, query.limit + 1)
        shown, following = cut(rows, query.limit, lambda row: (row["day"], row["campaign"]))
        return json_response(Page(list(map(_encode, shown)), following))

    def operations(self) -> list[Operation]:
        return [
            Operation(
                method="GET",
                path="/v1/traffic-rules",
                id="listTrafficRules",
                tag="traffic",
                summary="Every version of the rules of invalid traffic, the newest first",
                handle=self.rules,
                scopes=OPERATORS,
                query=PageQuery,
                answer=Page[RulesVersion],
            ),
            Operation(
                method="POST",
                path="/v1/traffic-rules",
                id="reviseTrafficRules",
                tag="traffic",
                summary="Put other rules in force",
                description="Every process judges by them within seconds. What was judged before stays as it is: "
                "`adserve rejudge` credits what they find invalid.",
                handle=self.revise,
                scopes=OPERATORS,
                body=Rules,
                answer=RulesVersion,
                statuses=(201,),
                idempotent=True,
                example={"clients_allowed": ["WhatsApp"], "clicks_of_viewer": {"count": 20, "window_s": 60}},
            ),
            Operation(
                method="GET",
                path="/v1/reports/traffic",
                id="reportTraffic",
                tag="analysts",
                summary="Gross, invalid and net by campaign and day",
                handle=self.report,
                scopes=READERS,
                query=TrafficQuery,
                answer=Page[TrafficRow],
            ),
        ]


def _encode(row: Row) -> TrafficRow:
    gross, invalid_, net = (
        Money(row[name], row["currency"]) for name in ("gross_micros", "invalid_micros", "net_micros")
    )
    day: datetime = row["day"]
    return TrafficRow(
        day.astimezone(UTC).date().isoformat(),
        row["campaign"],
        row["advertiser"],
        row["events"],
        row["invalid_events"],
        gross,
        invalid_,
        net,
    )
