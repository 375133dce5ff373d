"""Migrations are safe when two start at once and when killed; the roles of I9 exist from the first one."""

import asyncio
import secrets
import signal
import subprocess
import sys
from collections.abc import AsyncIterator

import asyncpg
import pytest

from adserve.database import fresh, migrate, schema
from adserve.database.embedded import Embedded
from adserve.database.pools import Sizes
from adserve.database.refusal import DatabaseRefused

ROLES = [f"adserve_{role}" for role in sorted(Sizes._fields)]

MIGRATE = "import sys; from adserve.database.migrate import migrate; migrate(sys.argv[1], lambda m: print(m, flush=True))"


@pytest.fixture
async def empty_url(server_url: str) -> AsyncIterator[str]:
    name = f"adserve_empty_{secrets.token_hex(4)}"
    yield await fresh.create(server_url, name)
    await fresh.drop(server_url, name)


async def fetch(url: str, query: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(url)
    rows: list[asyncpg.Record] = await connection.fetch(query)
    await connection.close()
    return rows


async def revisions(url: str) -> list[str]:
    return [row[0] for row in await fetch(url, "SELECT version_num FROM adserve.alembic_version")]


def start(url: str, program: str = MIGRATE) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", program, url], stdout=subprocess.PIPE, text=True)


async def test_everything_belongs_to_the_owner_and_no_role_may_log_in(database_url: str) -> None:
    roles = await fetch(
        database_url,
        "SELECT rolname::text FROM pg_roles WHERE rolname LIKE 'adserve\\_%' AND NOT rolsuper "
        "AND NOT rolbypassrls AND NOT rolcanlogin AND NOT rolcreaterole ORDER BY 1",
    )
    assert [row[0] for row in roles] == ROLES
    owners = await fetch(
        database_url,
        "SELECT DISTINCT relowner::regrole::text FROM pg_class WHERE relnamespace = 'adserve'::regnamespace "
        "UNION SELECT proowner::regrole::text FROM pg_proc WHERE pronamespace = 'adserve'::regnamespace "
        "UNION SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname = 'adserve'",
    )
    assert [row[0] for row in owners] == ["adserve_owner"]


async def test_nothing_lies_outside_the_schema(database_url: str) -> None:
    assert not await fetch(
        database_url, "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
    )


async def functions(url: str) -> set[str]:
    rows = await fetch(url, "SELECT proname::text FROM pg_proc WHERE pronamespace = 'adserve'::regnamespace")
    return {row[0] for row in rows}


async def test_functions_are_put_in_place_by_the_first_run_and_by_a_later_one(empty_url: str) -> None:
    for _ in range(2):
        migrate.migrate(empty_url, lambda _: None)
        assert {"ensure_partitions", "deposit", "settle_batch"} <= await functions(empty_url)
        connection = await asyncpg.connect(empty_url)
        await connection.execute("DROP FUNCTION adserve.deposit")
        await connection.close()


async def test_a_second_run_changes_nothing(database_url: str) -> None:
    before = await revisions(database_url)
    said: list[str] = []
    migrate.migrate(database_url, said.append)
    assert await revisions(database_url) == before
    assert said == []


SLOWLY = f"""
import time
from adserve.database import migrate as m
execute = m._execute
def slowly(*arguments, **named):
    time.sleep(1.5)
    execute(*arguments, **named)
m._execute = slowly
{MIGRATE}"""


async def test_three_at_once_apply_each_revision_once(empty_url: str) -> None:
    runs = [start(empty_url) for _ in range(3)]
    outputs = [run.communicate()[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0, 0]
    applied = [line for output in outputs for line in output.splitlines() if line.startswith("migrating")]
    assert len(applied) == len(set(applied)) == len(list(migrate.MIGRATIONS.glob("*.sql")))


async def test_control_without_the_lock_two_at_once_collide(empty_url: str) -> None:
    unlocked = SLOWLY.replace("execute = ", "m._wait_for_lock = lambda *_: None; execute = ")
    runs = [start(empty_url, unlocked) for _ in range(2)]
    for run in runs:
        run.communicate()
    assert any(run.returncode for run in runs)


async def test_databases_of_one_cluster_may_be_migrated_at_once(server_url: str) -> None:
    names = [f"adserve_many_{secrets.token_hex(4)}" for _ in range(3)]
    urls = [await fresh.create(server_url, name) for name in names]
    runs = [start(url) for url in urls]
    for run in runs:
        run.communicate()
    assert [run.returncode for run in runs] == [0, 0, 0]
    for name in names:
        await fresh.drop(server_url, name)


@pytest.mark.parametrize("victim", ["0001_roles.sql", "0002_catalogue.sql", "0003_metering.sql"])
async def test_killed_in_the_middle_it_goes_on_where_it_was(empty_url: str, victim: str) -> None:
    killing = (
        "import os, signal; from adserve.database import migrate as m; execute = m._execute\n"
        "def stall(connection, sql, **how):\n"
        "    execute(connection, sql, **how)\n"
        f"    if sql == (m.MIGRATIONS / {victim!r}).read_text(): os.kill(os.getpid(), signal.SIGKILL)\n"
        f"m._execute = stall; {MIGRATE}"
    )
    run = start(empty_url, killing)
    run.communicate()
    assert run.returncode == -signal.SIGKILL
    done = await fetch(empty_url, "SELECT to_regclass('adserve.alembic_version') IS NOT NULL")
    before = (await revisions(empty_url)) if done[0][0] else []
    assert before < [victim[:4]]
    said: list[str] = []
    migrate.migrate(empty_url, said.append)
    assert said[0].endswith(victim)
    assert [await revisions(empty_url)] == [[max(path.name[:4] for path in migrate.MIGRATIONS.glob("*.sql"))]]


async def test_a_day_from_before_it_was_guarded_cannot_be_emptied_either(
    empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    upgrade = migrate.command.upgrade
    with monkeypatch.context() as earlier:
        earlier.setattr(migrate.command, "upgrade", lambda config, _: upgrade(config, "0019"))
        migrate.migrate(empty_url, lambda _: None)
    connection = await asyncpg.connect(empty_url, server_settings={"search_path": "adserve"})
    await connection.execute("SET ROLE adserve_owner; SELECT ensure_partitions('2026-01-01', '2026-01-02')")
    migrate.migrate(empty_url, lambda _: None)
    with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="append-only"):
        await connection.execute("TRUNCATE events_20260101")
    await connection.close()


async def test_a_privileged_role_of_that_name_is_refused(own_server: Embedded) -> None:
    url = own_server.url
    connection = await asyncpg.connect(url)
    await connection.execute("CREATE ROLE adserve_analyst BYPASSRLS")
    with pytest.raises(DatabaseRefused, match="role adserve_analyst must be NOSUPERUSER NOBYPASSRLS NOLOGIN"):
        migrate.migrate(url, lambda _: None)
    await connection.execute("ALTER ROLE adserve_analyst NOBYPASSRLS")
    migrate.migrate(url, lambda _: None)
    await connection.close()


async def test_a_login_that_is_no_superuser_can_migrate_and_take_every_role(own_server: Embedded) -> None:
    url = own_server.url
    connection = await asyncpg.connect(url)
    await connection.execute("CREATE ROLE app LOGIN CREATEROLE PASSWORD 'secret'")
    await connection.execute("CREATE DATABASE app OWNER app")
    await connection.close()
    app_url = f"postgresql://app:secret@{url.rpartition('@')[2].replace('/adserve?', '/app?')}"
    migrate.migrate(app_url, lambda _: None)
    for role in ROLES:
        connection = await asyncpg.connect(app_url, server_settings={"role": role})
        assert await connection.fetchval("SELECT current_user") == role
        await connection.close()


async def test_a_program_updates_the_schema_through_the_command(empty_url: str) -> None:
    said: list[str] = []
    await schema.update(empty_url, said.append)
    assert said[0] == "migrating: 0001_roles.sql"
    assert await revisions(empty_url)
    with pytest.raises(DatabaseRefused, match="does not exist"):
        await schema.update(fresh.at(empty_url, "adserve_nowhere"), said.append)


async def test_a_newer_database_is_refused(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    await connection.execute("UPDATE adserve.alembic_version SET version_num = '9999'")
    await connection.close()
    with pytest.raises(DatabaseRefused, match="9999"):
        migrate.migrate(database_url, lambda _: None)


async def test_a_start_of_earlier_code_leaves_a_newer_database_as_it_is(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    await connection.execute("UPDATE adserve.alembic_version SET version_num = '9999'")
    await connection.execute("COMMENT ON SCHEMA adserve IS 'functions of that code'")
    await connection.close()
    said: list[str] = []
    await schema.update(database_url, said.append)
    await schema.check(database_url)
    assert (said, await revisions(database_url)) == ([], ["9999"])


async def test_the_service_does_not_load_the_migration_tool() -> None:
    program = "import sys, adserve.database.schema, adserve.database.pools; print('alembic' in sys.modules)"
    run = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert run.stdout == "False\n"


async def test_a_start_migrates_only_what_is_not_of_this_code(empty_url: str) -> None:
    said: list[str] = []
    await schema.update(empty_url, said.append)
    assert said
    said.clear()
    await schema.update(empty_url, said.append)
    assert said == []
    connection = await asyncpg.connect(empty_url)
    await connection.execute("COMMENT ON SCHEMA adserve IS 'functions of another code'")
    await connection.execute("DROP FUNCTION adserve.deposit")
    await connection.close()
    await schema.update(empty_url, said.append)
    assert "deposit" in await functions(empty_url)
