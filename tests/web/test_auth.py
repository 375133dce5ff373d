import asyncio

import pytest
from service import Service

from adserve.store.errors import Away
from adserve.store.notify import Listener
from adserve.web.auth import Auth

PATH = "/v1/rollout"


async def test_without_a_valid_key_nobody_learns_anything(service: Service) -> None:
    for header in (
        "",
        "Bearer",
        "Bearer ",
        "Bearer ads_x",
        "Basic YTpi",
        f"Token {service.keys['operator']}",
    ):
        reply = await service.call("GET", PATH, key=None, Authorization=header)
        assert reply.status == 401, header
        assert reply.headers["WWW-Authenticate"].startswith("Bearer")
    lower = f"bearer {service.keys['operator']}"
    assert (await service.call("GET", PATH, key=None, Authorization=lower)).status == 200


async def test_a_key_without_the_scope_is_told_which_it_lacks(service: Service) -> None:
    reply = await service.call("GET", PATH, key="feed")
    assert reply.status == 403
    assert "'operator'" in reply.body["detail"]


async def test_a_key_is_checked_before_the_body_is_read(service: Service) -> None:
    assert (await service.call("PUT", PATH, b"{", key=None)).status == 401
    assert (await service.call("PUT", PATH, b"{", key="feed")).status == 403


async def test_only_hashes_are_stored(service: Service) -> None:
    rows = await service.pools.catalogue.fetch("SELECT * FROM api_keys")
    kept = repr([dict(row) for row in rows])
    assert len(rows) == len(service.keys)
    for secret in service.keys.values():
        assert secret not in kept
        assert secret[8:] not in kept


async def test_a_revoked_key_ends_with_the_next_refresh(service: Service) -> None:
    secret = await service.issue("operator", name="to be revoked")
    ids = await service.pools.catalogue.fetchval("SELECT id FROM api_keys WHERE name = 'to be revoked'")
    assert (await service.call("GET", PATH, key=secret)).status == 200
    await service.revoke(ids)
    assert (await service.call("GET", PATH, key=secret)).status == 200  # not refreshed yet
    await service.auth.refresh()
    assert (await service.call("GET", PATH, key=secret)).status == 401
    assert Auth.POLL_S < 5


async def test_a_revocation_is_announced(service: Service, database_url: str) -> None:
    secret = await service.issue("operator", name="to be revoked")
    heard = asyncio.Event()
    listener = Listener(database_url, {Auth.CHANNEL: heard})
    await listener.step(0)
    assert heard.is_set(), "what was announced before it listened"
    heard.clear()
    key = await service.pools.catalogue.fetchval("SELECT id FROM api_keys WHERE name = 'to be revoked'")
    await service.revoke(key)
    await heard.wait()
    listener.close()
    await service.auth.refresh()
    assert (await service.call("GET", PATH, key=secret)).status == 401


async def test_keys_go_on_without_postgresql(service: Service) -> None:
    await service.pools.catalogue.close()
    with pytest.raises(Away):
        await service.auth.refresh()
    assert (await service.call("GET", "/v1/advertisers")).status == 200
    await service.pools.operator.close()
    reply = await service.call("GET", "/v1/advertisers")
    assert (reply.status, reply.headers["Content-Type"]) == (503, "application/problem+json")
    assert reply.headers["Retry-After"] == "1"
    assert "pool" not in reply.raw.decode()
