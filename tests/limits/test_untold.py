"""What could not be told while the counters in Redis were away is told before anybody counts on them again."""

import asyncio
from typing import Any

import pytest
from counting import START_MS, VIEWER, B, capped, reserve_one, ticket_id
from keepers import Log, keeping
from redis_servers import needs_redis

from adserve.limits.counters import CountersAway
from adserve.store.counters import UNTOLD_MAX

pytestmark = needs_redis
AD = capped(1, window_s=60)
TICKET = AD.ticket(ticket_id(1))


class Looking(Log):
    """Looks how the viewer's entries are when the counters may be asked again, and the log has not answered yet."""

    counters: Any = None

    def __init__(self) -> None:
        super().__init__()
        self.states: list[str] = []

    async def hides(self, since_ms: int, most: int) -> list[tuple[bytes, int, int]]:
        self.states = [entry.state for entry in (await self.counters.held(VIEWER)).entries]
        return await super().hides(since_ms, most)


async def test_what_is_in_doubt_is_told_before_the_log_is_asked_for_hides(redis_url: str) -> None:
    log = Looking()
    async with keeping(redis_url, log) as keeper:
        log.counters = keeper.counters
        await keeper.step(START_MS)
        assert await keeper.counters.confirm(TICKET, START_MS, START_MS)
        keeper._drop("it was silent")
        await keeper.counters.doubt(TICKET)
        keeper.counters.hides_missing_from_ms = START_MS
        await keeper.step(START_MS)
        assert log.states == ["doubted"]
        assert not keeper.counters.untold


async def test_a_hide_that_could_not_be_told_needs_no_event_log(redis_url: str) -> None:
    """PostgreSQL and Redis are away, and Redis returns first."""
    log = Log()
    async with keeping(redis_url, log) as keeper:
        await keeper.step(START_MS)
        keeper._drop("it was silent")
        await keeper.counters.hide(B.ticket(ticket_id(2)), START_MS)
        log.away = True
        await keeper.step(START_MS)
        assert keeper.counters.filled
        assert not await reserve_one(keeper.counters, B, 3)
        assert not keeper.counters.untold_hides


async def test_what_cannot_be_told_again_stays_untold(redis_url: str) -> None:
    async with keeping(redis_url) as keeper:
        await keeper.step(START_MS)
        nodes = keeper.counters.nodes
        assert nodes is not None
        keeper._drop("it was silent")
        await keeper.counters.doubt(TICKET)
        await keeper.counters.hide(TICKET, START_MS)
        with pytest.raises(CountersAway):
            await keeper._ready(nodes, keeper.counters.epoch, START_MS)
        assert not keeper.counters.filled
        assert (len(keeper.counters.untold), len(keeper.counters.untold_hides)) == (1, 1)


@pytest.mark.parametrize(("doubts", "epoch"), [(UNTOLD_MAX - 1, 1), (UNTOLD_MAX + 1, 2)])
async def test_where_there_is_no_room_for_all_doubts_an_epoch_is_begun(
    redis_url: str, doubts: int, epoch: int
) -> None:
    async with keeping(redis_url) as keeper:
        await keeper.step(START_MS)
        keeper.counters.untold.extend([TICKET] * doubts)
        for _ in range(2):
            await keeper.step(START_MS)
            assert keeper.detail == f"epoch {epoch}, 1 in redis"
            assert not keeper.counters.untold


async def test_a_doubt_leaves_behind_a_question_that_was_cut_off(redis_url: str) -> None:
    async with keeping(redis_url) as keeper:
        await keeper.step(START_MS)
        asking = asyncio.create_task(keeper.counters.confirm(TICKET, START_MS, START_MS))
        await asyncio.sleep(0)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await keeper.counters.doubt(TICKET)
        assert [entry.state for entry in (await keeper.counters.held(VIEWER)).entries] == ["doubted"]
