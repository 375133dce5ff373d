"""The first answers to creating calls, kept in the transaction of what they created."""

from datetime import datetime
from typing import NamedTuple

from adserve.domain.ids import AdvertiserId, KeyId
from adserve.store.desk import Connection
from adserve.store.errors import KeyReused
from adserve.store.statements import load

SQL = load("idempotency")


class Answer(NamedTuple):
    status: int
    body: bytes
    etag: str | None
    location: str | None


async def take(
    connection: Connection, caller: KeyId, advertiser: AdvertiserId | None, key: str, digest: bytes
) -> Answer | None:
    """Takes the key for this transaction, or gives the answer that it got before.

    A twin at the same time waits here until the first has committed, and then gets its answer.
    """
    if await connection.fetchval(SQL.take, caller, advertiser, key, digest):
        return None
    return await earlier_answer(connection, caller, key, digest)


async def earlier_answer(connection: Connection, caller: KeyId, key: str, digest: bytes) -> Answer | None:
    row = await connection.fetchrow(SQL.earlier, caller, key)
    if row is None:
        return None
    if row["digest"] != digest:
        raise KeyReused(f"{key!r} came before with another request")
    return Answer(row["status"], row["body"], row["etag"], row["location"])


async def remember(connection: Connection, caller: KeyId, key: str, answer: Answer) -> None:
    await connection.execute(SQL.remember, caller, key, *answer)


async def forget(connection: Connection, before: datetime) -> None:
    await connection.execute(SQL.forget, before)
