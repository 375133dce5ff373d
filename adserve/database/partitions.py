"""A partition a day for every table that is partitioned by its ticket's day. There is no default partition: a row without
a partition is an error, not a row that has to be moved later."""

from collections.abc import Sequence
from datetime import date
from pathlib import Path

import asyncpg

from adserve.database import statements

INDEX_TIMEOUT_S = 3_600.0

SQL = statements.load(Path(__file__).parent / "sql" / "partitions.sql")


async def ensure(connection: asyncpg.Connection, first: date, last: date) -> int:
    """Makes the partitions that are missing from `first` to `last`, both included, and answers how many.

    As adserve_owner. Safe to repeat and to run twice at once; readers and writers of the tables go on meanwhile.
    """
    made: int = await connection.fetchval(SQL.ensure, first, last)
    return made


async def drop(connection: asyncpg.Connection, parent: str, first_kept: date) -> int:
    """Drops a table's partitions of the days before `first_kept`, as adserve_owner, and answers how many.

    Whoever uses the table waits behind us, so we wait for nobody for long: then it fails, and is to be tried again.
    """
    async with connection.transaction():
        await connection.execute(SQL.wait_briefly)
        dropped: int = await connection.fetchval(SQL.drop, parent, first_kept)
    return dropped


async def index_closed(
    connection: asyncpg.Connection, parent: str, columns: Sequence[str], before: date
) -> bool:
    """Gives the first of a table's partitions of the days before that which has none an index on columns, of which the first names
    it, as adserve_owner; answers whether there was one.

    While a day is written its writers pay for no index; later rows of it are few. Nobody waits while it is built, so it cannot be
    part of a transaction: what was cut short is dropped and built again.
    """
    if not await connection.fetchval(SQL.turn_to_index):
        return False
    unindexed = await connection.fetchrow(SQL.unindexed, parent, columns, before)
    if unindexed is None:
        return False
    drop_broken, build = unindexed
    await connection.execute(SQL.take_time)  # until the connection is given back, as the turn
    await connection.execute(drop_broken, timeout=INDEX_TIMEOUT_S)
    await connection.execute(build, timeout=INDEX_TIMEOUT_S)
    return True
