"""Connection pools, each of which speaks as one role of I9."""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

import asyncpg
import orjson

from adserve.database import schema, statements
from adserve.database.refusal import DatabaseRefused

SQL = statements.load(Path(__file__).parent / "sql" / "pools.sql")

COMMAND_TIMEOUT_S = 30.0
"""Bounds what we wait; the server's own limit lies below it, so that it is the server that gives up first."""
CONNECT_TIMEOUT_S = 10.0

SETTINGS = {
    "search_path": "adserve",
    "timezone": "UTC",
    "statement_timeout": "25s",
    "idle_in_transaction_session_timeout": "60s",
    "client_connection_check_interval": "5s",  # a statement of a killed process does not run on
    "jit": "off",  # compiling takes longer than our statements
}

_JSONB_VERSION = b"\x01"


class Sizes(NamedTuple):
    """The most connections that a pool may open."""

    recorder: int = 4
    catalogue: int = 2
    tenant: int = 4
    operator: int = 4
    analyst: int = 4
    owner: int = 2


@dataclass(frozen=True, slots=True)
class Pools:
    """`owner` works on whole partitions: makes, indexes, closes and drops them."""

    recorder: asyncpg.Pool
    catalogue: asyncpg.Pool
    tenant: asyncpg.Pool
    operator: asyncpg.Pool
    analyst: asyncpg.Pool
    owner: asyncpg.Pool

    async def close(self) -> None:
        """Waits for connections that are lent out."""
        await asyncio.gather(*(getattr(self, role).close() for role in Sizes._fields))

    def terminate(self) -> None:
        """Whoever waits on a connection gets an error now."""
        for role in Sizes._fields:
            getattr(self, role).terminate()


async def open_pools(
    url: str,
    *,
    sizes: Sizes = Sizes(),  # noqa: B008 - it is immutable
    holder: UUID | None = None,
) -> Pools:
    """Opens one connection of each pool, marked as those of `holder`, so that whoever serves next can end what it left running.
    Raises DatabaseRefused for a database that is not migrated."""
    await schema.check(url)
    opened: list[asyncpg.Pool] = []
    try:
        for role, size in zip(Sizes._fields, sizes, strict=True):
            opened.append(await _open(url, f"adserve_{role}", size=size, holder=holder))
    except BaseException:
        for pool in opened:
            pool.terminate()
        raise
    return Pools(*opened)


async def open_pool(url: str, role: str, *, size: int) -> asyncpg.Pool:
    """One pool alone. Raises DatabaseRefused for a database that is not migrated."""
    await schema.check(url)
    return await _open(url, role, size=size, holder=None)


async def _open(url: str, role: str, *, size: int, holder: UUID | None) -> asyncpg.Pool:
    """A pool of up to `size` connections as `role`, which is their start-up value, so that a reset returns to it."""
    pool = await asyncpg.create_pool(
        url,
        min_size=0,  # or the driver keeps trying, loudly, while PostgreSQL is away
        max_size=size,
        max_inactive_connection_lifetime=0,
        init=_set_codecs,
        reset=_reset,
        command_timeout=COMMAND_TIMEOUT_S,
        timeout=CONNECT_TIMEOUT_S,
        server_settings={
            **SETTINGS,
            "role": role,
            "application_name": role if holder is None else f"{role} {holder}",
        },
    )
    try:
        async with pool.acquire():
            return pool
    except asyncpg.PostgresError as error:  # the role is not there, or not for this user
        raise DatabaseRefused(f"PostgreSQL gives no connection as {role}: {error}") from error


async def _reset(connection: asyncpg.Connection) -> None:
    await connection.execute(SQL.reset)


async def _set_codecs(connection: asyncpg.Connection) -> None:
    """jsonb as Python values, uuid as the standard library's UUID (the driver's own subclass is unknown to orjson)."""
    await connection.set_type_codec(
        "jsonb",
        schema="pg_catalog",
        format="binary",
        encoder=lambda value: _JSONB_VERSION + orjson.dumps(value),
        decoder=lambda data: orjson.loads(data[1:]),
    )
    await connection.set_type_codec(
        "uuid",
        schema="pg_catalog",
        format="binary",
        encoder=lambda value: value.bytes,
        decoder=lambda data: UUID(bytes=data),
    )
