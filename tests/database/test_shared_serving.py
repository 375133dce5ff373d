"""Processes with shared counters serve together, and never beside one that counts in its own memory."""

import time
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest

from adserve.database.refusal import DatabaseRefused
from adserve.database.replica_lock import Serving, ServingLock
from adserve.database.shared_serving import SharedServing
from adserve.store.errors import AWAY


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """For those who are to be refused."""
    for module in ("replica_lock", "shared_serving"):
        monkeypatch.setattr(f"adserve.database.{module}.PATIENCE_S", 0.2)


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


async def test_several_serve_together(database_url: str) -> None:
    first, second = SharedServing(database_url), SharedServing(database_url)
    for one in (first, second):
        await one.acquire(wall_ms())
        assert one.state is Serving.SHARED
        assert one.may_serve(wall_ms())
    for one in (first, second):
        await one.release()


async def test_neither_kind_serves_beside_the_other(
    database_url: str, tmp_path: Path, impatient: None
) -> None:
    alone, shared = ServingLock(database_url, tmp_path, uuid4()), SharedServing(database_url)
    await alone.acquire(wall_ms())
    with pytest.raises(DatabaseRefused, match="in memory"):
        await shared.acquire(wall_ms())
    await alone.release()
    await shared.acquire(wall_ms())
    with pytest.raises(DatabaseRefused, match="another process serves"):
        await alone.acquire(wall_ms())
    await shared.release()


async def test_a_lost_connection_is_made_again(database_url: str) -> None:
    shared = SharedServing(database_url)
    await shared.acquire(wall_ms())
    killer = await asyncpg.connect(database_url)
    await killer.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'adserve_serving'"
    )
    with pytest.raises(AWAY):
        await shared.keep(wall_ms())
    assert shared.state is Serving.DISCONNECTED
    await shared.keep(wall_ms())
    assert shared.state is Serving.SHARED
    await shared.release()
    await killer.close()
