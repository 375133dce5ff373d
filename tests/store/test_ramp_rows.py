"""What the database itself keeps of plans, whoever writes: one a place, an end that stays, a plan that never changes, a whole history."""

from typing import Any

import asyncpg
import pytest
from world import superuser

from adserve.database.pools import Pools

INSERT = """
INSERT INTO ramps (surface, countries, plan, made_by, made_at, status, step, step_entered_at, good_bp, reason)
VALUES ('status', $1, '{}', 'a test', now(), 'scheduled', -1, now(), 0, '') RETURNING id"""


async def plan(connection: Any, *countries: str) -> int:
    id_: int = await connection.fetchval(INSERT, list(countries))
    return id_


async def end(connection: Any, id_: int) -> None:
    await connection.execute("UPDATE ramps SET status = 'aborted' WHERE id = $1", id_)


async def test_a_place_has_one_active_plan(pools: Pools, database_url: str) -> None:
    operator = pools.operator
    whole, two = await plan(operator), await plan(operator, "ID", "SG")
    for countries in ((), ("SG", "MY")):
        with pytest.raises(asyncpg.UniqueViolationError):
            await plan(operator, *countries)
    await end(operator, two)
    await plan(operator, "SG", "MY")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await operator.execute("DELETE FROM ramp_places WHERE ramp_id = $1", whole)
    owner = await superuser(database_url)  # the control
    await owner.execute("ALTER TABLE ramp_places DROP CONSTRAINT ramp_places_pkey")
    await plan(operator)
    await owner.close()


async def test_what_has_ended_stays_so_and_what_was_planned_never_changes(pools: Pools) -> None:
    id_ = await plan(pools.operator)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await pools.operator.execute("UPDATE ramps SET plan = '{}' WHERE id = $1", id_)
    await end(pools.operator, id_)
    with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="has ended"):
        await pools.operator.execute("UPDATE ramps SET status = 'running' WHERE id = $1", id_)


async def test_the_history_is_append_only(pools: Pools, database_url: str) -> None:
    id_ = await plan(pools.operator)
    owner = await superuser(database_url)
    await owner.execute(
        "INSERT INTO ramp_history (ramp_id, at, act, by, status, step, percent_bp, reason) "
        "VALUES ($1, now(), 'plan', 'a test', 'scheduled', -1, 0, '')",
        id_,
    )
    for change in (
        "UPDATE ramp_history SET by = 'nobody'",
        "DELETE FROM ramp_history",
        "TRUNCATE ramp_history",
    ):
        with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="append-only"):
            await owner.execute(change)
    await owner.execute("ALTER TABLE ramp_history DISABLE TRIGGER append_only")  # the control
    assert await owner.execute("DELETE FROM ramp_history") == "DELETE 1"
    await owner.close()
