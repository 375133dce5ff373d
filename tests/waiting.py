"""Waiting for what comes when it comes: a stall of the machine makes a test slower, and never another result."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg

PATIENCE_S = 60
PATIENCE_MS = 1_000 * PATIENCE_S
WAITS_FOR_A_LOCK = """
SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"""


async def until(condition: Callable[[], Any], seconds: float = PATIENCE_S) -> float:
    """How long it took until the condition, awaited where it is to be, was true."""
    began = time.monotonic()
    while True:
        holds = condition()
        if await holds if inspect.isawaitable(holds) else holds:
            return time.monotonic() - began
        assert time.monotonic() - began < seconds, "waited in vain"
        await asyncio.sleep(0.01)


async def until_a_lock_is_waited_for(database_url: str) -> None:
    """By a statement in this database."""
    connection = await asyncpg.connect(database_url)
    try:
        await until(lambda: connection.fetchval(WAITS_FOR_A_LOCK))
    finally:
        await connection.close()


async def happens(once: Callable[[], Awaitable[Any]], tries: int = 20) -> bool:
    """What a broken twin does by chance, it does in one of many tries."""
    for _ in range(tries):
        if await once():
            return True
    return False
