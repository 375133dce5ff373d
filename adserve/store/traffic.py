"""The versions of the rules of invalid traffic, the events that are judged again by one, and what was invalid."""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from ipaddress import IPv4Network, IPv6Network
from typing import Any, NamedTuple

import asyncpg
import msgspec

from adserve.domain.events import EventKind, Outcome
from adserve.domain.time import day_of, from_ms
from adserve.domain.traffic import Origin, Rules
from adserve.metering.rejudging import Finding, Found, Logged
from adserve.metering.tickets import TICKET_TTL_MAX_MS
from adserve.metering.traffic import Moments
from adserve.store.desk import Connection
from adserve.store.errors import AWAY, Away
from adserve.store.setup import Row
from adserve.store.statements import load

SQL = load("traffic")

PAGE_ROWS = 1_000
READ_TIMEOUT_S = 600.0

_decode_rules = msgspec.json.Decoder(Rules).decode


class Revision(NamedTuple):
    """What the operator said last."""

    number: int
    rules: Rules


class Version(NamedTuple):
    """`networks` is the digest of the list, empty where there is none."""

    version: int
    revision: int
    rules: Rules
    crawlers: str
    networks: str
    made_at: datetime


FIRST = Revision(1, Rules())


class TrafficStore:
    """Needs a pool of adserve_recorder."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def newest(self) -> Revision:
        """The defaults of the code become the first revision."""
        try:
            row = await self._pool.fetchrow(SQL.newest)
        except AWAY as error:
            raise Away(str(error)) from error
        return FIRST if row is None else Revision(row["revision"], _decode_rules(row["rules"]))

    async def version_of(self, revision: Revision, crawlers: str, networks: str, now_ms: int) -> int:
        """The version that a revision is with these lists: it may be new."""
        try:
            async with self._pool.acquire() as connection:
                return await version_of(connection, revision, crawlers, networks, now_ms)
        except AWAY as error:
            raise Away(str(error)) from error

    async def logged(self, from_ms_: int, to_ms_: int) -> AsyncIterator[Logged]:
        """What was judged of the events received in between, in that order."""
        async with self._pool.acquire() as connection, connection.transaction(readonly=True):
            await connection.execute(SQL.take_time)
            issued = day_of(from_ms_ - TICKET_TTL_MAX_MS), day_of(to_ms_)  # what came in time
            moments = from_ms(from_ms_), from_ms(to_ms_)
            cursor = connection.cursor(
                SQL.judged, *moments, *issued, prefetch=PAGE_ROWS, timeout=READ_TIMEOUT_S
            )
            async for row in cursor:
                yield _logged(row)

    async def find_invalid(self, version: int, findings: Sequence[Finding], now_ms: int) -> Found:
        """Notes and credits them, in one transaction; repeating it changes nothing."""
        columns = [list(column) for column in zip(*findings, strict=True)]
        return Found(*await self._pool.fetchrow(SQL.find_invalid, version, *columns, from_ms(now_ms)))


async def version_of(
    connection: Connection, revision: Revision, crawlers: str, networks: str, now_ms: int
) -> int:
    known = revision.number, crawlers, networks
    version: int | None = await connection.fetchval(SQL.version_of, *known)
    if version is None:
        rules = msgspec.json.encode(revision.rules).decode()
        version = await connection.fetchval(
            SQL.add_version, revision.number, rules, crawlers, networks, from_ms(now_ms)
        )
    if version is None:  # another process was quicker
        version = await connection.fetchval(SQL.version_of, *known)
    assert version is not None  # noqa: S101 - for the type checker: versions are never deleted
    return version


async def revise(connection: Connection, rules: Rules, crawlers: str, networks: str, now_ms: int) -> Version:
    """Puts new rules in force."""
    await connection.execute(SQL.lock)
    row = await connection.fetchrow(SQL.newest)
    revision = Revision((FIRST.number if row is None else row["revision"]) + 1, rules)
    version = await version_of(connection, revision, crawlers, networks, now_ms)
    return Version(version, revision.number, rules, crawlers, networks, from_ms(now_ms))


async def page(connection: Connection, before: int, limit: int) -> list[Version]:
    """The newest first."""
    rows = await connection.fetch(SQL.page, before, limit)
    return [Version(**{**row, "rules": _decode_rules(row["rules"])}) for row in map(dict, rows)]


async def report(
    connection: Connection,
    hours: tuple[datetime, datetime],
    campaign: int | None,
    after: tuple[datetime, int],
    limit: int,
) -> list[Row]:
    rows: list[Row] = await connection.fetch(SQL.report, *hours, campaign, *after, limit)
    return rows


def _logged(row: Any) -> Logged:
    return Logged(
        row["issued_day"],
        row["ticket_id"],
        EventKind(row["kind"]),
        Outcome(row["outcome"]),
        row["viewer"] or b"",
        row["issued_at_ms"],
        Moments(row["received_at_ms"], row["occurred_at_ms"], row["view_ms"], row["impression_at_ms"]),
        Origin(tuple(row["crawlers"] or ()), _text(row["network"]), row["address"], row["device"]),
    )


def _text(network: IPv4Network | IPv6Network | None) -> str | None:
    return None if network is None else str(network)
