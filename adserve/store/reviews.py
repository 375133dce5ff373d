"""What a person has to judge before it is shown, and the verdicts."""

from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from adserve.domain.ids import KeyId
from adserve.store.desk import Connection
from adserve.store.errors import Contradiction, Missing
from adserve.store.setup import CREATIVES, Row
from adserve.store.statements import load

SQL = load("reviews")


class State(StrEnum):
    """Of a creative's newest revision."""

    WAITING = "waiting"
    APPROVED = "approved"
    REJECTED = "rejected"


class Queue(NamedTuple):
    """Creatives that wait, and for how long the oldest of them has."""

    creatives: int
    oldest_s: float


async def page(
    connection: Connection,
    state: State,
    after: tuple[datetime, int] | None,
    limit: int,
    advertiser: int | None,
) -> list[Row]:
    """By the moment since when they are so, beyond `after`: a moment and an id. Archived ones are nobody's to judge."""
    at, creative = after or (None, 0)
    rows: list[Row] = await connection.fetch(SQL.page, state, at, creative, limit, advertiser)
    return rows


async def judge(
    connection: Connection, creative: int, revision: int, verdict: State, reason: str | None, by: KeyId
) -> Row:
    """The creative afterwards. The same verdict again changes nothing. Raises Contradiction where the revision is not the newest
    one: nobody judges what they have not seen."""
    row = await CREATIVES.lock(connection, creative)
    if row["status"] == "archived":
        raise Contradiction("It is archived, which is for ever: it is not shown any more.")
    if row["revision"] != revision:
        raise Contradiction(
            f"The creative stands at revision {row['revision']}, not {revision}: look at that one."
        )
    if row["review"] != verdict or reason not in (None, row["review_reason"]):
        await connection.execute(SQL.judge, creative, verdict, reason, by)
    judged: Row | None = await connection.fetchrow(SQL.one, creative)
    if judged is None:
        raise Missing(f"creatives has no {creative}")
    return judged


async def queue(connection: Connection) -> Queue:
    return Queue(*await connection.fetchrow(SQL.waiting))
