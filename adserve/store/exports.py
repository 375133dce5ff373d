"""Questions about the log whose whole answer somebody fetches."""

from datetime import datetime

from adserve.store.desk import Connection
from adserve.store.errors import Missing
from adserve.store.statements import load

SQL = load("exports")


async def add(connection: Connection, advertiser: int | None, asked: str, at: datetime) -> int:
    """`asked` is JSON."""
    id_: int = await connection.fetchval(SQL.add, advertiser, asked, at)
    return id_


async def one(connection: Connection, id_: int) -> tuple[str, datetime]:
    """What was asked, as JSON, and when. Raises Missing."""
    row = await connection.fetchrow(SQL.one, id_)
    if row is None:
        raise Missing("There is no such export.")
    return row["asked"], row["made_at"]


async def forget(connection: Connection, before: datetime) -> None:
    await connection.execute(SQL.forget, before)
