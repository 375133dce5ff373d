"""Plans are walked by one replica at a time, from what PostgreSQL has of them: whoever dies, another goes on."""

import asyncio
from contextlib import suppress
from typing import Any

import asyncpg
import msgspec
import pytest
from plans import PLAN, Seen, act, at, history, made, stands
from waiting import until

from adserve.bootstrap.ramps import LOOKS_KEPT_MS, Walking
from adserve.database.pools import Pools
from adserve.domain.ramps import Act, Finding, Look, Ramp, Status
from adserve.domain.time import MINUTE_MS
from adserve.store import ramps, rollouts


@pytest.fixture
def seen() -> Seen:
    return Seen()


async def test_a_plan_is_walked_to_its_end(pools: Pools, clock: Any, seen: Seen) -> None:
    id_, walking = await made(pools, clock), Walking(pools.operator, seen.observe)
    for expected in (
        (Status.RUNNING, 0, at(1)),
        (Status.RUNNING, 1, at(100)),
        (Status.RUNNING, 2, at(10_000)),
        (Status.COMPLETED, 2, at(10_000)),
    ):
        await walking.step(clock())
        assert await stands(pools, id_) == expected
        clock.advance(MINUTE_MS)
    assert (await history(pools, id_))[-1] == ("look", "completed", 10_000)
    await walking.step(clock())
    assert len(await history(pools, id_)) == 5


async def test_harm_takes_the_step_back_and_says_why_with_the_figures(
    pools: Pools, clock: Any, seen: Seen
) -> None:
    id_, walking = await made(pools, clock), Walking(pools.operator, seen.observe)
    for _ in range(2):
        await walking.step(clock())
        clock.advance(MINUTE_MS)
    seen.finding = Finding.BREACHED
    await walking.step(clock())
    assert await stands(pools, id_) == (Status.ROLLED_BACK, 1, at(1))
    async with pools.operator.acquire() as connection:
        last = (await ramps.history(connection, id_, 0, 100))[-1]
        (look,) = await ramps.looks(connection, id_, 1, 10)
    assert last.by is None
    assert last.reason == "sessions are breached; back to 0.01 %"
    assert last.seen == look
    assert look.verdicts[0].finding is Finding.BREACHED
    await made(pools, clock)  # the places are free again


async def test_a_step_is_looked_at_once_a_minute_by_one_of_many_and_at_once_after_an_act(
    pools: Pools, clock: Any, seen: Seen
) -> None:
    id_ = await made(pools, clock)
    replicas = [Walking(pools.operator, seen.observe) for _ in range(3)]
    await replicas[0].step(clock())
    for _ in range(5):
        await asyncio.gather(*(replica.step(clock()) for replica in replicas))
        clock.advance(MINUTE_MS // 5)
    assert seen.looks == 1
    await act(pools, id_, Act.PAUSE, clock)
    await replicas[1].step(clock())
    assert seen.looks == 2
    clock.advance(10 * MINUTE_MS)
    seen.finding = Finding.BREACHED
    await replicas[2].step(clock())
    assert await stands(pools, id_) == (Status.ROLLED_BACK, 0, at(0)), "a paused plan is watched all the same"


async def test_whoever_holds_the_turn_decides_alone(
    pools: Pools, clock: Any, seen: Seen, database_url: str
) -> None:
    id_, walking = await made(pools, clock), Walking(pools.operator, seen.observe)
    other = await asyncpg.connect(database_url)
    await other.execute("SELECT pg_advisory_lock(hashtextextended('adserve.ramps', 0))")
    await walking.step(clock())
    assert (await stands(pools, id_))[0] is Status.SCHEDULED
    other.terminate()  # it dies, and its turn with it

    async def runs() -> bool:
        await walking.step(clock())
        return (await stands(pools, id_))[0] is Status.RUNNING

    await until(runs)


async def test_all_ads_paused_pauses_the_plan_without_a_look(pools: Pools, clock: Any, seen: Seen) -> None:
    id_, walking = await made(pools, clock), Walking(pools.operator, seen.observe)
    for _ in range(2):
        await walking.step(clock())
    async with pools.operator.acquire() as connection:
        await rollouts.set_paused(connection, True)
    clock.advance(1_000)
    looks = seen.looks
    await walking.step(clock())
    assert (await stands(pools, id_), seen.looks) == ((Status.PAUSED, 0, at(1)), looks)
    async with pools.operator.acquire() as connection:
        await rollouts.set_paused(connection, False)
    clock.advance(60 * MINUTE_MS)
    await walking.step(clock())
    assert (await stands(pools, id_))[0] is Status.PAUSED, "no plan resumes what a person paused"


async def test_one_plan_that_cannot_be_looked_at_keeps_no_other_from_being(
    pools: Pools, clock: Any, seen: Seen
) -> None:
    class HalfBlind(Seen):
        async def observe(self, connection: Any, ramp: Ramp, now_ms: int) -> Look:
            if ramp.id == first:
                raise TimeoutError("no figures")
            return await super().observe(connection, ramp, now_ms)

    first = await made(pools, clock)
    second = await made(pools, clock, msgspec.structs.replace(PLAN, countries=("MY",)))
    walking = Walking(pools.operator, HalfBlind().observe)
    await walking.step(clock())
    clock.advance(MINUTE_MS)
    with pytest.raises(TimeoutError):
        await walking.step(clock())
    assert (await stands(pools, first))[:2] == (Status.RUNNING, 0)
    assert (await stands(pools, second))[:2] == (Status.RUNNING, 1)


async def test_what_moved_while_it_was_looked_at_is_not_moved_by_that_look(
    pools: Pools, clock: Any, seen: Seen
) -> None:
    class Slow(Seen):
        async def observe(self, connection: Any, ramp: Ramp, now_ms: int) -> Look:
            await act(pools, ramp.id, Act.ABORT, clock)
            return await super().observe(connection, ramp, now_ms)

    id_, slow = await made(pools, clock), Slow()
    await Walking(pools.operator, slow.observe).step(clock())
    clock.advance(MINUTE_MS)
    await Walking(pools.operator, slow.observe).step(clock())
    assert await stands(pools, id_) == (Status.ABORTED, 0, at(1))


async def test_looks_are_thinned_out_when_shown_and_forgotten_when_old(
    pools: Pools, clock: Any, seen: Seen
) -> None:
    id_, walking = (
        await made(pools, clock, msgspec.structs.replace(PLAN, hours=(0,))),
        Walking(pools.operator, seen.observe),
    )
    await walking.step(clock())
    clock.advance(60 * MINUTE_MS)  # past the hour in which it may advance
    first_ms = clock()
    for _ in range(20):
        await walking.step(clock())
        clock.advance(MINUTE_MS)
    last_ms = clock() - MINUTE_MS

    async def kept(points: int) -> list[int]:
        async with pools.operator.acquire() as connection:
            return [look.at_ms for look in await ramps.looks(connection, id_, 0, points)]

    assert await kept(100) == list(range(first_ms, last_ms + 1, MINUTE_MS))
    few = await kept(5)
    assert len(few) == 5
    assert few[-1] == last_ms
    await walking.forget(last_ms + LOOKS_KEPT_MS - 5 * MINUTE_MS)
    assert await kept(100) == list(range(last_ms - 5 * MINUTE_MS, last_ms + 1, MINUTE_MS))
    await walking.forget(last_ms + 2 * LOOKS_KEPT_MS)
    assert await kept(100) == [last_ms], "the newest of a step stays"


async def taken_by_another(pools: Pools) -> bool:
    async with pools.operator.acquire() as another:
        return await ramps.take_turn(another)


async def test_the_turn_of_a_process_that_hangs_ends_by_itself(
    pools: Pools, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ramps, "TURN_SILENCE", "100ms")
    with suppress(asyncpg.InternalClientError):  # of giving back what the server ends at that moment
        async with pools.operator.acquire() as hanging:
            assert await ramps.take_turn(hanging)
            await until(lambda: taken_by_another(pools))


async def test_control_without_a_limit_it_lasts(pools: Pools, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ramps, "TURN_SILENCE", "0")
    async with pools.operator.acquire() as hanging:
        assert await ramps.take_turn(hanging)
        await asyncio.sleep(0.5)
        assert not await taken_by_another(pools)
