"""Refuses a server that could forget what it acknowledged, or that lives in another time than we do (I1)."""

from pathlib import Path

import asyncpg

from adserve.database import statements
from adserve.database.refusal import DatabaseRefused
from adserve.domain.time import Clock

SQL = statements.load(Path(__file__).parent / "sql" / "durability.sql")

OLDEST_VERSION = 160_000
CLOCK_OFFSET_MAX_MS = 250
CLOCK_SAMPLES = 7


async def check(connection: asyncpg.Connection, now: Clock) -> None:
    """Raises DatabaseRefused, saying what is wrong and what to do.

    Ask on a connection of the pool that records: a database or a login may have a synchronous_commit of its own.
    """
    promises = await connection.fetchrow(SQL.promises)
    if promises["version"] < OLDEST_VERSION:
        raise DatabaseRefused(
            f"PostgreSQL {promises['version'] // 10_000} is too old: "
            f"{OLDEST_VERSION // 10_000} or later is needed"
        )
    if promises["read_only"]:
        raise DatabaseRefused(
            "PostgreSQL writes nothing: it is a standby, or default_transaction_read_only is on for it, the database or the "
            "user. ADSERVE_DATABASE_URL has to name the primary"
        )
    off = [name for name in ("fsync", "full_page_writes", "synchronous_commit") if promises[name] == "off"]
    if off:
        cures = " ".join(f"ALTER SYSTEM RESET {name};" for name in off)
        raise DatabaseRefused(
            f"PostgreSQL has {' and '.join(off)} off, so a crash could lose events that were acknowledged. Turn on: "
            f"{cures} SELECT pg_reload_conf(); (and look in postgresql.conf, ALTER DATABASE and ALTER ROLE)"
        )
    offset_ms = await clock_offset_ms(connection, now)
    if abs(offset_ms) > CLOCK_OFFSET_MAX_MS:
        side = "ahead of" if offset_ms > 0 else "behind"
        raise DatabaseRefused(
            f"PostgreSQL's clock is {abs(offset_ms)} ms {side} ours, more than {CLOCK_OFFSET_MAX_MS} ms: "
            "synchronise both machines (chrony, systemd-timesyncd), then start again"
        )


async def clock_offset_ms(connection: asyncpg.Connection, now: Clock) -> int:
    """How far PostgreSQL's clock is ahead, by the quickest of several round trips: the others waited somewhere."""
    best_trip_ms, best_offset_ms = None, 0
    for _ in range(CLOCK_SAMPLES):
        asked_ms = now()
        theirs_ms = await connection.fetchval(SQL.clock)
        answered_ms = now()
        if best_trip_ms is None or answered_ms - asked_ms < best_trip_ms:
            best_trip_ms = answered_ms - asked_ms
            best_offset_ms = theirs_ms - (asked_ms + answered_ms) // 2
    return best_offset_ms
