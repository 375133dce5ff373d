"""What the database refuses, whoever asks: changes of what happened, lopsided postings, another tenant's rows."""

import asyncpg
import pytest
from world import NOW_MS, World, superuser

from adserve.domain.time import from_ms
from adserve.store.rollups import Rollups

TABLES = (
    "events",
    "postings",
    "transactions",
    "leases",
    "accounts",
    "budget_uses",
    "rollup_deltas",
    "rollups",
)
CLOSINGS = ("closed_days", "closing_entries", "closing_figures")

TRANSACTION = "INSERT INTO transactions (kind, reference, at) VALUES ('deposit', 'planted', $1) RETURNING id"
POSTINGS = "INSERT INTO postings (transaction_id, account_id, micros, currency) SELECT $1, id, $2, $3 FROM accounts WHERE kind = 'cash'"


async def settled(world: World) -> None:
    lease = await world.lease(10_000)
    await world.journal.settle([world.event(world.ticket(lease)) for _ in range(2)])
    await Rollups(world.pools.recorder).compact()
    await world.journal.settle([world.event(world.ticket(lease))])


@pytest.mark.parametrize("table", ["events", "postings", "transactions"])
async def test_what_happened_is_not_changed_by_its_owner(world: World, database_url: str, table: str) -> None:
    await settled(world)
    owner = await superuser(database_url)
    partition = await owner.fetchval("SELECT tableoid::regclass::text FROM events LIMIT 1")
    column = {"events": "received_at", "postings": "micros", "transactions": "at"}[table]
    tables = [table, partition] if table == "events" else [table]
    for target in tables:
        for change in (
            f"UPDATE {target} SET {column} = {column}",
            f"DELETE FROM {target}",
            f"TRUNCATE {target} CASCADE",
        ):
            with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="append-only"):
                await owner.execute(change)
    await owner.execute("ALTER TABLE postings DISABLE TRIGGER append_only")  # the control
    assert await owner.execute("DELETE FROM postings") != "DELETE 0"
    await owner.close()


@pytest.mark.parametrize("role", ["recorder", "tenant", "operator", "analyst", "catalogue"])
async def test_no_role_of_the_service_writes_money_or_events_itself(world: World, role: str) -> None:
    await settled(world)
    pool = getattr(world.pools, role)
    for table in TABLES + CLOSINGS:
        column = await world.pools.owner.fetchval(
            "SELECT attname FROM pg_attribute WHERE attrelid = $1::regclass AND attnum = 2", table
        )
        for change in (
            f"UPDATE {table} SET {column} = {column}",
            f"DELETE FROM {table}",
            f"INSERT INTO {table} DEFAULT VALUES",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await pool.execute(change)
    partition = await world.pools.owner.fetchval("SELECT tableoid::regclass::text FROM events LIMIT 1")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await pool.fetch(f"SELECT FROM {partition}")


@pytest.mark.parametrize(("micros", "currency"), [(1, "USD"), (-1, "USD"), (1, "EUR")])
async def test_a_lopsided_or_foreign_posting_is_refused(
    world: World, database_url: str, micros: int, currency: str
) -> None:
    owner = await superuser(database_url)
    transaction = await owner.fetchval(TRANSACTION, from_ms(NOW_MS))
    with pytest.raises(asyncpg.IntegrityConstraintViolationError):
        await owner.execute(POSTINGS, transaction, micros, currency)
    await owner.execute("ALTER TABLE postings DISABLE TRIGGER balanced")  # the control
    assert await owner.execute(POSTINGS, transaction, micros, currency) == "INSERT 0 1"
    await owner.close()


NOWHERE = """
INSERT INTO postings (transaction_id, account_id, micros, currency)
SELECT $1, $2, micros, 'USD' FROM unnest(ARRAY[1, -1]::bigint[]) AS micros"""


@pytest.mark.parametrize("missing", ["account", "transaction"])
async def test_a_posting_without_its_account_or_transaction_is_refused(
    world: World, database_url: str, missing: str
) -> None:
    owner = await superuser(database_url)
    transaction = await owner.fetchval(TRANSACTION, from_ms(NOW_MS))
    account = await owner.fetchval("SELECT id FROM accounts WHERE kind = 'cash'")
    values = (transaction, -1) if missing == "account" else (-1, account)
    with pytest.raises(asyncpg.IntegrityConstraintViolationError, match=missing):
        await owner.execute(NOWHERE, *values)
    await owner.execute("ALTER TABLE postings DISABLE TRIGGER balanced")  # the control
    assert await owner.execute(NOWHERE, *values) == "INSERT 0 2"
    await owner.close()


async def test_the_accounts_of_postings_stay(world: World, database_url: str) -> None:
    await settled(world)
    owner = await superuser(database_url)
    for change in ("DELETE FROM accounts", "UPDATE accounts SET id = DEFAULT", "TRUNCATE accounts CASCADE"):
        with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="append-only"):
            await owner.execute(change)
    await owner.execute("ALTER TABLE accounts DISABLE TRIGGER stays")  # the control
    assert await owner.execute("DELETE FROM accounts") != "DELETE 0"
    await owner.close()


async def seen(world: World, advertiser: int, table: str) -> int:
    async with world.pools.tenant.acquire() as connection, connection.transaction():
        await connection.execute("SELECT set_config('adserve.tenant', $1, true)", str(advertiser))
        return int(await connection.fetchval(f"SELECT count(*) FROM {table}"))


@pytest.mark.parametrize(
    "table", ["events", "rollup_deltas", "rollups", "accounts", "leases", "budget_uses", "postings"]
)
async def test_a_tenant_sees_its_own_rows_only(world: World, database_url: str, table: str) -> None:
    await settled(world)
    other = await world.add_advertiser(0)
    assert await seen(world, world.advertiser, table) > 0
    assert await seen(world, other, table) == 0
    assert await world.pools.tenant.fetchval(f"SELECT count(*) FROM {table}") == 0
    owner = await superuser(database_url)
    await owner.execute(f"DROP POLICY own ON {table}")
    await owner.execute(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY")
    if table == "postings":
        await owner.execute("ALTER TABLE accounts DISABLE ROW LEVEL SECURITY")
    await owner.close()
    assert await seen(world, other, table) > 0  # the control
