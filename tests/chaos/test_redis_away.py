"""Two replicas that count in one Redis, and what becomes of it: nothing is shown too often, nothing is billed twice or lost."""

import asyncio
import secrets
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import pytest
import redis
from live import Caller, Live, calling, furnish
from redis_servers import RedisServer, needs_redis
from waiting import until

pytestmark = needs_redis

ONCE_A_DAY = {"scope": "campaign", "count": 1, "window_s": 86_400}
PRICE_MICROS = 3_000
HASTE_MS = 200
"""The deadline of a decision that Redis does not answer; any other may wait as long as the machine stalls."""
CAPPED = {
    "caps": [ONCE_A_DAY],
    "bid": {"model": "cpm", "price": {"micros": 3_000_000, "currency": "USD"}},
    "priority": "guaranteed",  # it pays its own price, whoever competes
}
FREE = {"name": "Uncapped"}


class Setting(NamedTuple):
    redis: RedisServer
    replicas: tuple[Live, Live]
    keys: dict[str, str]


@pytest.fixture(scope="module")
def setting(home: Path, fresh_database_url: str) -> Iterator[Setting]:
    server = RedisServer()
    given = {"database_url": fresh_database_url, "redis_url": server.url, "public_url": "http://ads.test"}
    replicas = Live(home, **given), Live(home, **given)
    try:
        for replica in replicas:
            replica.start()
        keys = asyncio.run(furnish(replicas[0], fresh_database_url, (CAPPED, FREE)))
        yield Setting(server, replicas, keys)
    finally:
        for replica in replicas:
            replica.end()
        server.end()


@pytest.fixture
async def callers(setting: Setting) -> AsyncIterator[tuple[Caller, Caller]]:
    first, second = setting.replicas
    async with calling(first, setting.keys) as one, calling(second, setting.keys) as two:
        for caller in (one, two):
            await until(lambda caller=caller: ready(caller))
            await until(lambda caller=caller: supplied(caller))
        yield one, two


async def counters(caller: Caller) -> str:
    said: str = (await caller.readiness())[1]["counters"]["detail"]
    return said


async def supplied(caller: Caller) -> bool:
    """It has budget of both campaigns."""
    return set(await placed(caller, secrets.token_hex(8))) == {"capped", "free"}


async def ready(caller: Caller) -> bool:
    return (await counters(caller)).startswith("epoch")


async def placed(caller: Caller, viewer: str, **more: Any) -> dict[str, str]:
    """The ticket by the campaign's kind, `capped` or `free`."""
    reply = await caller.slots(viewer, max_ads=2, **more)
    assert reply.status == 200, reply
    first = min(await campaigns(caller))
    return {
        "capped" if placement["ad"]["campaign"] == first else "free": placement["ticket"]
        for placement in reply.body["placements"]
    }


async def placed_in_haste(caller: Caller, viewer: str) -> tuple[dict[str, str], float]:
    """And how many seconds that took."""
    began = time.monotonic()
    tickets = await placed(caller, viewer, deadline_ms=HASTE_MS)
    return tickets, time.monotonic() - began


async def campaigns(caller: Caller) -> list[int]:
    return [item["id"] for item in (await caller.call("GET", "/v1/campaigns")).body["items"]]


async def known(caller: Caller, ticket: str) -> list[tuple[str, int | None]]:
    reply = await caller.call("GET", f"/v1/events/{ticket}", key="feed")
    return [
        (event["outcome"], event["billed"] and event["billed"]["micros"]) for event in reply.body["events"]
    ]


async def test_a_cap_holds_over_two_replicas(callers: tuple[Caller, Caller]) -> None:
    one, two = callers
    assert set(await placed(one, "over two")) == {"capped", "free"}
    assert set(await placed(two, "over two")) == {"free"}


async def test_a_retry_is_answered_alike_by_the_other_replica(callers: tuple[Caller, Caller]) -> None:
    one, two = callers
    first = await one.slots("retries", request="r-1", max_ads=2)
    again = await two.slots("retries", request="r-1", max_ads=2)
    assert len(first.body["placements"]) == 2
    assert again.body == first.body
    assert (await two.slots("retries", request="r-1", max_ads=1)).status == 409


async def lose_all(server: RedisServer, how: str) -> None:
    if how == "FLUSHALL":
        server.run("FLUSHALL")
    elif how == "kill -9":
        server.kill()
    else:
        become_its_own_replica(server)


def become_its_own_replica(server: RedisServer) -> None:
    """A replica takes the address over: with the data and the token, under a new master_replid."""
    replica = RedisServer()
    follow(replica, server.port)
    server.kill()
    server.start()
    replica.run("REPLICAOF", "NO", "ONE")
    follow(server, replica.port)
    server.run("REPLICAOF", "NO", "ONE")
    replica.end()
    assert server.run("GET", "adserve:counters"), "it has what its master had"


def follow(server: RedisServer, port: int) -> None:
    server.run("REPLICAOF", "127.0.0.1", port)
    while server.run("INFO", "replication")["master_link_status"] != "up":
        time.sleep(0.02)


@pytest.mark.parametrize("how", ["FLUSHALL", "kill -9", "failover"])
async def test_a_loss_withholds_capped_ads_until_the_counts_are_rebuilt(
    setting: Setting, callers: tuple[Caller, Caller], how: str
) -> None:
    one, two = callers
    seen, in_flight = f"{how} seen", f"{how} in flight"
    shown = (await placed(one, seen))["capped"]
    assert await one.rated(shown) == ["recorded"]
    waiting = (await placed(two, in_flight))["capped"]

    await lose_all(setting.redis, how)
    assert "capped" not in await placed(one, seen)
    assert "capped" not in await placed(two, f"{how} new")
    if how == "kill -9":
        await until(lambda: is_away(one))
        assert set(await placed(one, seen)) == {"free"}
        assert await two.outcomes(waiting) == ["accepted"]
        assert await two.outcomes(waiting) == ["duplicate"]
        assert await known(one, waiting) == [("accepted", None)]
        await until(lambda: told(one, "adserve_counters_ready 0.0", "adserve_events_pending 1.0"))
        setting.redis.start()
    else:
        assert await two.outcomes(waiting) in (["accepted"], ["recorded"])

    for caller in callers:
        await until(lambda caller=caller: ready(caller))
    await until(lambda: settled(one, waiting))
    assert await known(one, waiting) == [("recorded", PRICE_MICROS)]
    await until(lambda: told(one, "adserve_counters_ready 1.0", "adserve_events_pending 0.0"))
    for viewer in (seen, in_flight):
        for caller in callers:
            assert set(await placed(caller, viewer)) == {"free"}
    assert set(await placed(one, f"{how} after")) == {"capped", "free"}


async def told(caller: Caller, *lines: str) -> bool:
    said = (await caller.call("GET", "/metrics", key=None)).raw.decode().splitlines()
    return all(line in said for line in lines)


async def is_away(caller: Caller) -> bool:
    return (await counters(caller)).startswith("away")


async def settled(caller: Caller, ticket: str) -> bool:
    return (await known(caller, ticket))[0][0] != "accepted"


async def test_a_partition_is_survived_without_a_new_epoch(
    setting: Setting, callers: tuple[Caller, Caller]
) -> None:
    one, two = callers
    epoch = await counters(one)
    waiting = (await placed(one, "partition"))["capped"]
    setting.redis.signal(signal.SIGSTOP)
    try:
        answers = [await placed_in_haste(two, "partition") for _ in range(5)]
        assert all("capped" not in tickets for tickets, _ in answers)
        assert median(took_s for _, took_s in answers) < 2 * HASTE_MS / 1_000
        assert await one.outcomes(waiting) == ["accepted"]
        await until(lambda: is_away(one))
        assert set(await placed(one, "partition")) == {"free"}
    finally:
        setting.redis.signal(signal.SIGCONT)
    for caller in callers:
        await until(lambda caller=caller: ready(caller))
    await until(lambda: settled(two, waiting))
    assert await known(two, waiting) == [("recorded", PRICE_MICROS)]
    assert (await counters(one)).split(",")[0] == epoch.split(",")[0]
    assert set(await placed(two, "partition")) == {"free"}


async def test_what_is_hidden_while_redis_is_away_stays_hidden(
    setting: Setting, callers: tuple[Caller, Caller]
) -> None:
    one, two = callers
    ticket = (await placed(one, "hides"))["free"]
    setting.redis.signal(signal.SIGSTOP)
    try:
        assert await one.outcomes(ticket, kind="hide") == ["unbilled_kind"]
        assert await placed(one, "hides", deadline_ms=HASTE_MS) == {}
    finally:
        setting.redis.signal(signal.SIGCONT)
    await until(lambda: ready(one))
    await until(lambda: hidden(two, "hides"))


async def hidden(caller: Caller, viewer: str) -> bool:
    return await ready(caller) and await placed(caller, viewer) == {}


def test_control_a_server_that_was_not_lost_keeps_its_token(setting: Setting) -> None:
    with redis.Redis.from_url(setting.redis.url) as client:
        info: Any = client.info()
        token: Any = client.get("adserve:counters")
    server = [info["run_id"], info["master_replid"], str(info["evicted_keys"]), "1"]
    assert token.decode().split(":")[1:] == server
