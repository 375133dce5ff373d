"""What was delivered, grouped as the caller likes. The only statements that are put together: from the closed tables here.

What the hourly roll-ups tell is taken from them, as nothing is quicker; the rest from single events, which tell the same.
"""

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Any, NamedTuple

import asyncpg

from adserve.domain.time import DAY_MS, day_of, from_ms
from adserve.store.desk import Connection
from adserve.store.errors import Unanswerable
from adserve.store.setup import Row
from adserve.store.statements import load

SQL = load("delivery")

PATIENCE_MS = 10_000


class Column(NamedTuple):
    """What a row can be grouped and filtered by: an expression over events, and over what has only an hour, where that tells it.
    `moment` in it is when an event was received, or the hour; `zone` the time zone. `type` is the result's."""

    type: str
    events: str
    rollups: str | None = None
    funnel: str | None = None


def _everywhere(type_: str, expression: str) -> Column:
    return Column(type_, expression, expression, expression)


COLUMNS: Mapping[str, Column] = {
    "day": _everywhere("date", "({moment} AT TIME ZONE {zone})::date"),
    "hour": _everywhere("timestamptz", "date_trunc('hour', {moment}, {zone})"),
    "advertiser": _everywhere("bigint", "advertiser_id"),
    "campaign": _everywhere("bigint", "campaign_id"),
    "ad": Column("bigint", "ad_id", "ad_id"),
    "creative": Column("bigint", "creative_id"),
    "country": Column("text", "country"),
    "platform": Column("text", "platform"),
    "position": Column("integer", "position"),
    "arm": Column("text", "arm"),
    "model": Column("text", "model"),
    "surface": Column("text", "surface"),
}

_COUNTED = "outcome NOT IN ('late', 'over_cap', 'invalid_traffic')"
_SHOWN = f"FILTER (WHERE kind = 'impression' AND {_COUNTED})"
_SEEN = f"FILTER (WHERE kind = 'impression' AND {_COUNTED} AND viewer IS NOT NULL)"


def _count(kind: str) -> str:
    return f"coalesce(sum(events) FILTER (WHERE kind = '{kind}' AND {_COUNTED}), 0)::bigint"


METRICS: Mapping[str, str] = {
    "requests": "sum(requests)::bigint",
    "impressions": _count("impression"),
    "views": _count("view"),
    "clicks": _count("click"),
    "hides": _count("hide"),
    "spend": "sum(billed_micros)::bigint",
    "reach": f"CASE WHEN count(*) {_SHOWN} = 0 OR count(*) {_SEEN} > 0 THEN count(DISTINCT viewer) {_SHOWN} END",
    "frequency": f"round(count(*) {_SEEN}::numeric / nullif(count(DISTINCT viewer) {_SEEN}, 0), 4)::float8",
}
"""Over the parts of a group. An impression whose viewer is not known (any more) is in neither reach nor frequency."""
ROLLED_UP = tuple(name for name, column in COLUMNS.items() if column.rollups is not None)
OF_VIEWERS = frozenset({"reach", "frequency"})


class Question(NamedTuple):
    """`start` is included, `end` is not. `even_hours` says that days and both ends are made of whole hours in UTC.
    `after` is the place of the last row of the page before: its groups and its currency."""

    groups: Sequence[str]
    metrics: Sequence[str]
    filters: Mapping[str, Any]
    start_ms: int
    end_ms: int
    zone: str
    even_hours: bool
    after: Sequence[Any] | None
    limit: int


class _Statement:
    """A statement that grows, and its arguments."""

    def __init__(self, question: Question) -> None:
        self.arguments: list[Any] = []
        self._question = question

    def text(self) -> str:
        question = self._question
        source = "rollups" if rolled_up(question) else "events"
        parts = self._part(source, with_viewers=not OF_VIEWERS.isdisjoint(question.metrics))
        if knows_requests(question):
            parts += "\n" + self._part("funnel")
        groups = ", ".join([*question.groups, "currency"])
        metrics = [f"{METRICS[name]} AS {name}" for name in question.metrics]
        report: str = SQL.report.format(
            parts=parts,
            groups=groups,
            answered=", ".join([groups, *metrics]),
            after=self._after(groups),
            limit=self._argument(question.limit, "bigint"),
        )
        return report

    def _part(self, source: str, *, with_viewers: bool = False) -> str:
        question = self._question
        templates = {"events": SQL.from_events, "rollups": SQL.from_rollups, "funnel": SQL.from_funnel}
        template = SQL.from_events_with_viewers if with_viewers else templates[source]
        groups = [f"{self._expression(name, source)} AS {name}, " for name in question.groups]
        filters = [
            f"{self._expression(name, source)} = {self._argument(value, COLUMNS[name].type)}"
            for name, value in question.filters.items()
        ]
        part: str = template.replace("{groups}, ", "".join(groups)).format(
            start=self._argument(from_ms(question.start_ms), "timestamptz"),
            end=self._argument(from_ms(question.end_ms), "timestamptz"),
            filters=" AND ".join(filters) or "true",
            ticket_days=self._ticket_days() if source == "events" else "",
        )
        return part

    def _ticket_days(self) -> str:
        """What counts was received within a day of its ticket's issue: other partitions are not opened."""
        first, last = day_of(self._question.start_ms - DAY_MS), day_of(self._question.end_ms)
        return f"issued_day BETWEEN {self._argument(first, 'date')} AND {self._argument(last, 'date')}"

    def _after(self, groups: str) -> str:
        question = self._question
        if question.after is None:
            return "true"
        types = [*(COLUMNS[name].type for name in question.groups), "text"]
        place = [self._argument(value, type_) for value, type_ in zip(question.after, types, strict=True)]
        return f"({groups}) > ({', '.join(place)})"

    def _expression(self, name: str, source: str) -> str:
        expression: str = getattr(COLUMNS[name], source)
        if "{zone}" not in expression:
            return expression
        moment = "received_at" if source == "events" else "hour"
        return expression.format(moment=moment, zone=self._argument(self._question.zone, "text"))

    def _argument(self, value: Any, type_: str) -> str:
        self.arguments.append(value)
        return f"${len(self.arguments)}::{type_}"


def rolled_up(question: Question) -> bool:
    """Whether the roll-ups tell all of it."""
    columns = [COLUMNS[name].rollups for name in (*question.groups, *question.filters)]
    return question.even_hours and None not in columns and OF_VIEWERS.isdisjoint(question.metrics)


def knows_requests(question: Question) -> bool:
    """The funnel counts requests for each campaign: those of several are not to be added up, as most are the same."""
    named = {*question.groups, *question.filters}
    columns = [COLUMNS[name].funnel for name in named]
    wanted = "requests" in question.metrics and "campaign" in named
    return wanted and question.even_hours and None not in columns


async def report(connection: Connection, question: Question) -> list[Row]:
    """Raises Unanswerable when it cannot be counted in time, or needs single events that are not there any more."""
    statement = _Statement(question)
    text = statement.text()
    if not rolled_up(question):
        await _check_kept(connection, question)
    await connection.execute(SQL.patience.format(ms=PATIENCE_MS))
    try:
        rows: list[Row] = await connection.fetch(text, *statement.arguments)
    except asyncpg.QueryCanceledError as error:
        raise Unanswerable(f"takes longer than {PATIENCE_MS // 1_000} s to count: ask for less") from error
    return rows


async def kept_from(connection: Connection) -> date:
    """The first day (UTC) of which every single event is there that was received on it, or later."""
    gone: date | None = await connection.fetchval(SQL.last_gone)
    return date.min if gone is None else gone + timedelta(days=2)


async def _check_kept(connection: Connection, question: Question) -> None:
    kept = await kept_from(connection)
    if day_of(question.start_ms) < kept:
        raise Unanswerable(
            f"is before {kept}: of that, only whole hours by {', '.join(ROLLED_UP)} are kept, and no reach"
        )
