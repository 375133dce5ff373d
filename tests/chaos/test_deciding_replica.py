"""Two replicas walk a plan; the one that decides is gone in the midst of a move, its percents not yet written: killed, or hanging."""

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from live import Caller, Live, calling, furnish
from redis_servers import RedisServer, needs_redis
from waiting import until

REPLICAS = """
SELECT right(application_name, 36) FROM pg_stat_activity
WHERE datname = current_database() AND application_name LIKE 'adserve_operator %'"""
MOVING = f"{REPLICAS} AND wait_event_type = 'Lock'"
STANDS = "SELECT r.step, o.percent_bp FROM ramps r, rollouts o"
TOLD = "SELECT percent_bp FROM ramp_history ORDER BY id"
PLAN: dict[str, Any] = {
    "surface": "status",
    "steps": [{"percent": percent, "min_time_s": 1} for percent in range(1, 31)],
}


@pytest.fixture
def redis_url() -> Iterator[str]:
    server = RedisServer()
    yield server.url
    server.end()


async def is_gone_in_mid_move(database: Any, replicas: dict[str, Live], number: signal.Signals) -> Live:
    """The replica that decides gets the signal when the plan's next step is written and its percents are not."""
    async with database.transaction():
        await database.execute("SELECT FROM rollouts FOR UPDATE")
        await until(lambda: database.fetchval(MOVING))
        stood, deciding = await database.fetchrow(STANDS), replicas[await database.fetchval(MOVING)]
        deciding.signal(number)
        if number is signal.SIGKILL:
            deciding.wait()
    await until(lambda: has_gone_on(database, stood))
    return deciding


async def has_gone_on(database: Any, stood: Any) -> bool:
    """It is never seen with the percent of another step."""
    step, percent_bp = await database.fetchrow(STANDS)
    assert percent_bp == 100 * (step + 1)
    return bool(step > stood["step"])


@pytest.mark.slow
@needs_redis
async def test_another_goes_on_from_where_the_plan_stands(
    tmp_path: Path, database_url: str, redis_url: str
) -> None:
    given = {"database_url": database_url, "redis_url": redis_url, "ramp_look_s": 1}
    pair = [Live(tmp_path, **given), Live(tmp_path, **given)]
    database = await asyncpg.connect(database_url, server_settings={"search_path": "adserve"})
    replicas: dict[str, Live] = {}
    try:
        for live in pair:
            await asyncio.to_thread(live.start)
            (new,) = {name for (name,) in await database.fetch(REPLICAS)} - replicas.keys()
            replicas[new] = live
        keys = await furnish(pair[0], database_url)
        async with calling(pair[0], keys) as caller:
            await begin(caller)
        hanging = await is_gone_in_mid_move(database, replicas, signal.SIGSTOP)
        hanging.signal(signal.SIGCONT)
        killed = await is_gone_in_mid_move(database, replicas, signal.SIGKILL)
        assert [live.runs for live in pair] == [live is not killed for live in pair]
        told = [percent_bp for (percent_bp,) in await database.fetch(TOLD)]
        assert told == [100 * step for step in range(len(told))], "each step was taken once"
    finally:
        await database.close()
        for live in pair:
            live.end()


async def begin(caller: Caller) -> None:
    nobody = {"surfaces": {"status": {"percent": 0}}}
    assert (await caller.call("PUT", "/v1/rollout", nobody)).status == 200
    assert (await caller.call("POST", "/v1/ramps", PLAN)).status == 201
