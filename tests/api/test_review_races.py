"""Advertisers and reviewers at the same moment: what nobody has looked at is never approved."""

import asyncio
import itertools
from collections.abc import Awaitable

import asyncpg
from service import Reply, Service
from test_reviews import judge, listed, tenant, verdicts, waiting
from waiting import happens, until_a_lock_is_waited_for
from world import superuser

STEP_S = 0.002
"""The verdict comes so much later each time: before the edit, amid it, and behind it."""


async def after(seconds: float, call: Awaitable[Reply]) -> Reply:
    await asyncio.sleep(seconds)
    return await call


async def test_an_edit_and_an_approval_at_once_never_show_what_nobody_saw(service: Service) -> None:
    advertiser, key = await tenant(service)
    refused = 0
    for number in range(40):
        creative = await waiting(service, advertiser, key)
        path = f"/v1/creatives/{creative}"
        edit = service.call("PATCH", path, {"headline": "Unseen."}, key=key, If_Match="*")
        approval = after(number * STEP_S, judge(service, creative))
        statuses = sorted(reply.status for reply in await asyncio.gather(approval, edit))
        assert statuses in ([200, 200], [200, 409])
        refused += statuses == [200, 409]
        read = (await service.call("GET", path, key=key)).body
        assert (read["revision"], read["review"]["state"]) == (2, "waiting")
        assert (2, "approved", None) not in await verdicts(service, creative)
    assert refused > 0, "neither came first"


async def test_a_rename_and_approvals_at_once_never_show_what_nobody_saw(service: Service) -> None:
    """They may wait for each other, until PostgreSQL ends one, who is to try again."""
    for _ in range(10):
        advertiser, key = await tenant(service)
        creatives = [await waiting(service, advertiser, key) for _ in range(4)]
        rename = service.call(
            "PATCH", f"/v1/advertisers/{advertiser}", {"name": "Rude"}, key=key, If_Match="*"
        )
        renamed, *judged = await asyncio.gather(rename, *(judge(service, creative) for creative in creatives))
        assert renamed.status in (200, 503)
        assert {reply.status for reply in judged} <= {200, 409, 503}
        if renamed.status == 200:
            items = await listed(service, f"?advertiser={advertiser}")
            assert [item["revision"] for item in items] == [2] * 4


async def test_whom_postgresql_ends_of_two_that_wait_for_each_other_is_to_try_again(
    service: Service, database_url: str
) -> None:
    """A rename locks the catalogue's version first and creatives then, whoever writes a creative the other way round."""
    advertiser, key = await tenant(service)
    creative = await waiting(service, advertiser, key)
    writer = await superuser(database_url)
    await writer.execute("SET deadlock_timeout = '20s'")

    async def ended(number: int) -> bool:
        name = {"name": f"Rude {number}"}
        try:
            async with writer.transaction():
                await writer.execute("SELECT FROM creatives WHERE id = $1 FOR NO KEY UPDATE", creative)
                rename = asyncio.create_task(
                    service.call("PATCH", f"/v1/advertisers/{advertiser}", name, key=key, If_Match="*")
                )
                await until_a_lock_is_waited_for(database_url)
                await writer.execute("UPDATE creatives SET body = body || 'x' WHERE id = $1", creative)
        except asyncpg.DeadlockDetectedError:
            assert (await rename).status == 200
            return False
        reply = await rename
        assert (reply.status, reply.headers["Retry-After"]) == (503, "1")
        return True

    numbers = itertools.count()
    assert await happens(lambda: ended(next(numbers)), tries=5)
    await writer.close()
