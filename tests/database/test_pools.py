"""Every pool is one role, and comes back to it."""

import secrets
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import asyncpg
import pytest

from adserve.database.pools import Pools, Sizes, open_pools
from adserve.database.refusal import DatabaseRefused


@pytest.mark.parametrize("role", Sizes._fields)
async def test_a_pool_speaks_as_its_role(pools: Pools, role: str) -> None:
    async with getattr(pools, role).acquire() as connection:
        assert await connection.fetchval("SELECT current_user") == f"adserve_{role}"


async def test_a_connection_given_back_as_another_role_returns_to_its_own(database_url: str) -> None:
    pools = await open_pools(database_url, sizes=Sizes(tenant=1))
    async with pools.tenant.acquire() as connection:
        await connection.execute("SET ROLE adserve_owner; SET search_path = public; SET adserve.tenant = '7'")
        backend = await connection.fetchval("SELECT pg_backend_pid()")
    async with pools.tenant.acquire() as connection:
        assert await connection.fetchval("SELECT pg_backend_pid()") == backend
        assert await connection.fetchval("SELECT current_user") == "adserve_tenant"
        assert await connection.fetchval("SHOW search_path") == "adserve"
        assert not await connection.fetchval("SELECT current_setting('adserve.tenant', true)")
    await pools.close()


async def test_control_the_drivers_own_reset_would_keep_a_role_that_a_request_took(database_url: str) -> None:
    async with asyncpg.create_pool(
        database_url, min_size=1, max_size=1, server_settings={"role": "adserve_tenant"}
    ) as pool:
        await pool.execute("SET ROLE adserve_owner")
        assert await pool.fetchval("SELECT current_user") == "adserve_owner"


async def test_jsonb_and_uuid_are_python_values(pools: Pools) -> None:
    value = {"countries": ["ID"], "age": {"min": 18}, "none": None, "text": "ä\u2028"}
    assert await pools.recorder.fetchval("SELECT $1::jsonb", value) == value
    assert await pools.recorder.fetchval("SELECT $1::jsonb", None) is None
    ids = [uuid4() for _ in range(3)]
    answered = await pools.recorder.fetchval("SELECT $1::uuid[]", ids)
    assert answered == ids
    assert {type(value) for value in answered} == {UUID}


async def test_a_statement_is_bounded(pools: Pools) -> None:
    assert await pools.analyst.fetchval("SHOW statement_timeout") == "25s"


@pytest.mark.parametrize("place", ["127.0.0.1:1", "127.0.0.1:x", "[::1"])
async def test_no_pools_without_a_server(place: str) -> None:
    with pytest.raises(DatabaseRefused, match="cannot be reached"):
        await open_pools(f"postgresql://nobody:x@{place}/adserve?sslmode=disable")


async def test_no_pools_for_a_user_who_may_not_have_them(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    user = f"plain_{secrets.token_hex(4)}"
    await connection.execute(f"CREATE ROLE {user} LOGIN PASSWORD 'x'")
    theirs = urlsplit(database_url)
    url = theirs._replace(netloc=f"{user}:x@{theirs.netloc.rpartition('@')[2]}").geturl()
    try:
        with pytest.raises(DatabaseRefused, match="permission denied for schema adserve"):
            await open_pools(url)
        await connection.execute(f"GRANT USAGE ON SCHEMA adserve TO {user}")
        await connection.execute(f"GRANT SELECT ON adserve.alembic_version TO {user}")
        with pytest.raises(DatabaseRefused, match="gives no connection as adserve_recorder"):
            await open_pools(url)
    finally:
        await connection.execute(f"DROP OWNED BY {user}")
        await connection.execute(f"DROP ROLE {user}")
        await connection.close()


async def test_no_pools_on_a_database_that_misses_a_revision(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    await connection.execute("UPDATE adserve.alembic_version SET version_num = '0002'")
    with pytest.raises(DatabaseRefused, match=r"at revision 0002 and needs \d{4}"):
        await open_pools(database_url)
    await connection.execute("DROP SCHEMA adserve CASCADE")
    await connection.close()
    with pytest.raises(DatabaseRefused, match="at revision none"):
        await open_pools(database_url)
