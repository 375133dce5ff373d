"""What PostgreSQL itself sees to: whoever makes content, only staff's is approved, and verdicts stay."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest
from waiting import until_a_lock_is_waited_for
from world import World, superuser

from adserve.database import fresh, migrate
from adserve.domain.ids import KeyId
from adserve.store import reviews
from adserve.store.errors import Contradiction
from adserve.store.reviews import SQL, State

MEDIA = "a" * 64
MAKE = """
INSERT INTO creatives (advertiser_id, kind, media, headline, call_to_action, landing_url{more})
VALUES ($1, 'image', $2, 'h', 'shop_now', 'https://example.org'{values}) RETURNING *"""
PLAIN = MAKE.format(more="", values="")
BOLD = MAKE.format(more=", review, review_reason", values=", 'approved', 'by itself'")


@asynccontextmanager
async def as_tenant(world: World, advertiser: int | None = None) -> AsyncIterator[asyncpg.Connection]:
    async with world.pools.tenant.acquire() as connection, connection.transaction():
        await connection.execute(
            "SELECT set_config('adserve.tenant', $1, true)", str(advertiser or world.advertiser)
        )
        yield connection


@pytest.fixture
async def key(world: World) -> KeyId:
    await world.pools.operator.execute("INSERT INTO media VALUES ($1, 'image/webp', 1, 1080, 1920)", MEDIA)
    made: KeyId = await world.pools.operator.fetchval(
        "INSERT INTO api_keys (name, hash, hint, scopes) VALUES ('k', sha256('k'), 'h', '{reviewer}') RETURNING id"
    )
    return made


async def make(world: World, statement: str = PLAIN) -> Any:
    async with as_tenant(world) as tenant:
        return await tenant.fetchrow(statement, world.advertiser, MEDIA)


async def judge(world: World, creative: int, revision: int, verdict: State, key: KeyId) -> Any:
    reason = "why" if verdict is State.REJECTED else None
    async with world.pools.operator.acquire() as connection, connection.transaction():
        return await reviews.judge(connection, creative, revision, verdict, reason, key)


APPROVALS = (
    "UPDATE creatives SET review = 'approved'",
    "UPDATE creatives SET review = 'approved', review_key = $1",
    "UPDATE creatives SET review = 'approved', headline = 'other'",
    "UPDATE creatives SET review = 'approved', revision = revision + 1",
    "UPDATE creatives SET review = 'approved', revision = 0",
)


async def test_no_statement_of_a_tenant_approves(world: World, key: KeyId, database_url: str) -> None:
    creative = (await make(world, BOLD))["id"]

    async def bold() -> None:
        for statement in APPROVALS:
            async with as_tenant(world) as tenant:
                await tenant.execute(statement, *([key] if "$1" in statement else []))

    async def state() -> Any:
        return await world.pools.operator.fetchrow("SELECT * FROM creatives WHERE id = $1", creative)

    await bold()
    assert ((await state())["review"], (await state())["revision"]) == ("waiting", 3)
    await judge(world, creative, 3, State.REJECTED, key)
    await bold()
    assert ((await state())["review"], (await state())["revision"]) == ("waiting", 4)
    async with as_tenant(world) as tenant:
        for statement in (
            "INSERT INTO creative_verdicts (creative_id, advertiser_id, revision, verdict, at) "
            "SELECT id, advertiser_id, 4, 'approved', now() FROM creatives",
            "UPDATE creative_verdicts SET verdict = 'approved'",
            "DELETE FROM creative_verdicts",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                async with tenant.transaction():
                    await tenant.execute(statement)
    owner = await superuser(database_url)
    await owner.execute("DROP TRIGGER reviewed ON creatives")  # the control
    await owner.close()
    await bold()
    assert (await state())["review"] == "approved"


async def test_content_never_changes_under_its_revision(world: World, key: KeyId) -> None:
    """A statement that leaves the number alone, or puts it back, names another revision all the same."""
    creative = (await make(world))["id"]
    await judge(world, creative, 1, State.APPROVED, key)
    async with as_tenant(world) as tenant:
        changed = await tenant.fetchrow("UPDATE creatives SET body = 'rude', revision = 1 RETURNING *")
    assert (changed["revision"], changed["review"]) == (2, "waiting")
    with pytest.raises(Contradiction, match="revision 2, not 1"):
        await judge(world, creative, 1, State.APPROVED, key)
    for pool in (world.pools.operator, world.pools.owner):
        changed = await pool.fetchrow("UPDATE creatives SET body = body || '.', revision = 1 RETURNING *")
        assert (changed["review"], changed["review_reason"]) == ("approved", "made by staff")
    assert changed["revision"] == 4


async def test_a_tenant_sees_verdicts_on_its_own_alone(world: World, key: KeyId, database_url: str) -> None:
    creative, other = (await make(world))["id"], await world.add_advertiser(0)
    await judge(world, creative, 1, State.APPROVED, key)

    async def seen(advertiser: int) -> int:
        async with as_tenant(world, advertiser) as tenant:
            return int(await tenant.fetchval("SELECT count(*) FROM creative_verdicts"))

    assert (await seen(world.advertiser), await seen(other)) == (1, 0)
    owner = await superuser(database_url)
    await owner.execute("ALTER POLICY own ON creative_verdicts USING (true)")  # the control
    await owner.close()
    assert await seen(other) == 1


async def test_verdicts_are_changed_by_nobody(world: World, key: KeyId, database_url: str) -> None:
    creative = (await make(world))["id"]
    await judge(world, creative, 1, State.REJECTED, key)
    owner = await superuser(database_url)
    changes = (
        "UPDATE creative_verdicts SET reason = 'other'",
        "DELETE FROM creative_verdicts",
        "TRUNCATE creative_verdicts",
    )
    for change in changes:
        with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="append-only"):
            await owner.execute(change)
        for role in ("recorder", "catalogue", "tenant", "operator", "analyst"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await getattr(world.pools, role).execute(change)
    await owner.execute("ALTER TABLE creative_verdicts DISABLE TRIGGER append_only")  # the control
    assert await owner.execute(changes[1]) == "DELETE 1"
    await owner.close()


async def test_no_verdict_is_unrecorded_however_it_is_written(world: World, key: KeyId) -> None:
    creative = (await make(world))["id"]
    await world.pools.operator.execute("UPDATE creatives SET review = 'approved', review_key = $1", key)
    with pytest.raises(asyncpg.CheckViolationError):  # nobody is turned away without a word
        await world.pools.operator.execute("UPDATE creatives SET review = 'rejected', review_reason = NULL")
    rows = await world.pools.operator.fetch(
        "SELECT creative_id, revision, verdict, key_id FROM creative_verdicts"
    )
    assert [tuple(row) for row in rows] == [(creative, 1, "approved", key)]


async def test_an_approval_that_waits_for_an_edit_is_refused(
    world: World, key: KeyId, database_url: str
) -> None:
    creative = (await make(world))["id"]
    async with as_tenant(world) as tenant:
        await tenant.execute("UPDATE creatives SET headline = 'rude' WHERE id = $1", creative)
        approving = asyncio.create_task(judge(world, creative, 1, State.APPROVED, key))
        await until_a_lock_is_waited_for(database_url)
    with pytest.raises(Contradiction, match="revision 2, not 1"):
        await approving
    assert await world.pools.operator.fetchval("SELECT review FROM creatives") == "waiting"


async def test_control_an_approval_that_looked_before_it_waited_approves_the_unseen(
    world: World, key: KeyId, database_url: str
) -> None:
    creative = (await make(world))["id"]
    looked: int = await world.pools.operator.fetchval(
        "SELECT revision FROM creatives WHERE id = $1", creative
    )
    assert looked == 1
    async with as_tenant(world) as tenant:
        await tenant.execute("UPDATE creatives SET headline = 'rude' WHERE id = $1", creative)
        judging = world.pools.operator.execute(SQL.judge, creative, State.APPROVED, None, key)
        approving = asyncio.create_task(judging)
        await until_a_lock_is_waited_for(database_url)
    await approving
    row = await world.pools.operator.fetchrow("SELECT review, headline FROM creatives")
    assert tuple(row) == ("approved", "rude")


FILL = """
INSERT INTO creatives (advertiser_id, kind, media, headline, call_to_action, landing_url)
SELECT $1, 'image', $2, 'h', 'shop_now', 'https://example.org' FROM generate_series(1, $3)"""


def nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(node for child in plan.get("Plans", ()) for node in nodes(child))]


async def test_the_queue_is_read_through_its_index(world: World, key: KeyId, database_url: str) -> None:
    async with as_tenant(world) as tenant:
        await tenant.execute(FILL, world.advertiser, MEDIA, 50)
    await world.pools.operator.execute(FILL, world.advertiser, MEDIA, 20_000)
    owner = await superuser(database_url)
    await owner.execute("ANALYZE creatives, creative_verdicts")
    index = "creatives_review_review_at_id_idx"
    assert "WHERE (status <> 'archived'" in await owner.fetchval(
        "SELECT pg_get_indexdef($1::regclass)", index
    )
    for state in State:
        statement = await owner.prepare(SQL.page)
        plan = nodes((await statement.explain(state, None, 0, 51, None))[0]["Plan"])
        assert index in {node.get("Index Name") for node in plan}
        assert not [
            node for node in plan if node["Node Type"] in ("Sort", "Seq Scan") and "creatives" in str(node)
        ]
    counting = nodes((await (await owner.prepare(SQL.waiting)).explain())[0]["Plan"])
    assert index in {node.get("Index Name") for node in counting}
    await owner.execute(f"DROP INDEX {index}")  # the control
    plan = nodes((await (await owner.prepare(SQL.page)).explain("waiting", None, 0, 51, None))[0]["Plan"])
    assert "Seq Scan" in {node["Node Type"] for node in plan}
    await owner.close()


@pytest.fixture
async def empty_url(server_url: str) -> AsyncIterator[str]:
    name = f"adserve_unreviewed_{secrets.token_hex(4)}"
    yield await fresh.create(server_url, name)
    await fresh.drop(server_url, name)


async def test_what_is_shown_already_stays_so(monkeypatch: pytest.MonkeyPatch, empty_url: str) -> None:
    """From before there were reviews, and written by the code of that time afterwards."""
    upgrade = migrate.command.upgrade
    with monkeypatch.context() as earlier:
        earlier.setattr(migrate.command, "upgrade", lambda config, _: upgrade(config, "0021"))
        migrate.migrate(empty_url, lambda _: None)
    connection = await superuser(empty_url)
    await connection.execute("INSERT INTO media VALUES ($1, 'image/webp', 1, 1080, 1920)", MEDIA)
    advertiser = await connection.fetchval("INSERT INTO advertisers (name) VALUES ('a') RETURNING id")
    await connection.execute(PLAIN, advertiser, MEDIA)
    await connection.close()
    migrate.migrate(empty_url, lambda _: None)
    connection = await superuser(empty_url)
    row = await connection.fetchrow("SELECT * FROM creatives")
    assert (row["review"], row["review_reason"], row["review_key"]) == ("approved", None, None)
    assert await connection.fetchval("SELECT count(*) FROM creative_verdicts") == 0
    await connection.execute("SET ROLE adserve_tenant")
    await connection.execute("SELECT set_config('adserve.tenant', $1, false)", str(advertiser))
    earlier_change = "UPDATE creatives SET headline = 'n', revision = revision + 1 WHERE id = $1 RETURNING *"
    changed = await connection.fetchrow(earlier_change, row["id"])
    assert (changed["revision"], changed["review"]) == (2, "waiting")
    assert (await connection.fetchrow(PLAIN, advertiser, MEDIA))["review"] == "waiting"
    await connection.close()
