"""A partition a day for every table that is partitioned by its ticket's day. There is no default partition: a row without
a partition is an error, not a row that has to be moved later."""

from datetime import date
from pathlib import Path

import asyncpg

from adserve.database import statements

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
