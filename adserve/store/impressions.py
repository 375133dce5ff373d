"""The log of events as analysts and advertisers read it, page by page in the order of receipt."""

from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import asyncpg

from adserve.store.desk import Connection
from adserve.store.errors import Unanswerable
from adserve.store.setup import Row
from adserve.store.statements import load

SQL = load("impressions")

PATIENCE_MS = 20_000
"""Less than any statement may take: what few of many events are cannot be told in any time, however often one asks."""


class Filters(NamedTuple):
    """None lets everything through; `received_from` is included, `received_to` is not. `without_impression` lets only
    events through whose ticket has none, in whichever order they came."""

    kind: str | None
    received_from: datetime | None
    received_to: datetime | None
    advertiser: int | None
    campaign: int | None
    ad: int | None
    country: str | None
    platform: str | None
    surface: str | None
    outcome: str | None
    invalid_reason: str | None
    without_impression: bool


class Place(NamedTuple):
    """A row's place in the order of the log."""

    received_at: datetime
    event: UUID


async def page(connection: Connection, filters: Filters, after: Place | None, limit: int) -> list[Row]:
    """Raises Unanswerable when it cannot be found in time."""
    received_at, event = after or (None, None)
    await connection.execute(SQL.patience.format(ms=PATIENCE_MS))
    try:
        rows: list[Row] = await connection.fetch(SQL.page, limit, received_at, event, *filters)
    except asyncpg.QueryCanceledError as error:
        raise Unanswerable(
            f"takes longer than {PATIENCE_MS // 1_000} s to look through: ask for a shorter time (from, to), or of one advertiser for days that are over"
        ) from error
    return rows
