"""A start that cannot read its counters yet serves what needs none."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
from live import Caller, Live, calling, furnish
from waiting import until

ONE_A_DAY = {"caps": [{"scope": "campaign", "count": 1, "window_s": 86_400}]}


@pytest.fixture(scope="module")
def live(home: Path, fresh_database_url: str) -> Iterator[Live]:
    replica = Live(home, database_url=fresh_database_url)
    replica.start()
    yield replica
    replica.end()


async def ads_for(caller: Caller, viewer: str) -> int:
    return len(await caller.tickets(viewer, max_ads=2))


async def test_uncapped_ads_come_at_once_capped_ones_when_the_counters_are_filled(
    live: Live, fresh_database_url: str
) -> None:
    """Somebody holds the checkpoint, as if it took long to read."""
    keys = await asyncio.to_thread(lambda: asyncio.run(furnish(live, fresh_database_url, [ONE_A_DAY, {}])))
    async with calling(live, keys) as caller:
        (hidden, *_) = await caller.tickets("hider")
        assert await caller.outcomes(hidden, kind="hide") == ["unbilled_kind"]
        assert await ads_for(caller, "hider") == 0
        seen = await caller.tickets("seer", max_ads=2)
        assert await caller.rated(*seen) == ["recorded"] * 2
        assert live.terminate() == 0

        holder = await asyncpg.connect(fresh_database_url, server_settings={"search_path": "adserve"})
        try:
            async with holder.transaction():
                await holder.execute("LOCK TABLE counter_checkpoints")
                await asyncio.to_thread(live.start)
                _, parts = await caller.readiness()
                assert "filling" in parts["counters"]["detail"]
                await until(lambda: ads_for(caller, "new"))
                assert await ads_for(caller, "other") == 1, "the one without a cap"
                assert await ads_for(caller, "hider") == 0, "hides are known"
        finally:
            await holder.close()

        async def whole() -> bool:
            return await ads_for(caller, "later") == 2

        await until(whole)
        assert "epoch" in (await caller.readiness())[1]["counters"]["detail"]
        assert await ads_for(caller, "seer") == 1, "the other is capped"
        assert await ads_for(caller, "hider") == 0
