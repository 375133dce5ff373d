import asyncio
from collections.abc import Iterator
from uuid import uuid4

from world import NOW_MS

from adserve.database.pools import Pools
from adserve.domain.time import DAY_MS, HOUR_MS, from_ms
from adserve.store.checkpoints import Checkpoints
from adserve.store.epochs import Epochs
from adserve.store.spools import Spools

WAITS = """INSERT INTO pending_events (issued_day, ticket_id, kind, event_id, lease_id, received_at, event)
VALUES ('2026-01-01', gen_random_uuid(), 'impression', gen_random_uuid(), 1, $1, '')"""


async def newest(checkpoints: Checkpoints) -> tuple[int, list[bytes]] | None:
    taken_at_ms = await checkpoints.taken_at_ms()
    parts = [part async for part in checkpoints.parts()]
    return None if taken_at_ms is None else (taken_at_ms, parts)


async def test_the_newest_whole_checkpoint_is_found(pools: Pools) -> None:
    checkpoints = Checkpoints(pools.recorder)
    assert await newest(checkpoints) is None
    await checkpoints.save([b"one", b"two"], NOW_MS)
    assert await newest(checkpoints) == (NOW_MS, [b"one", b"two"])
    await checkpoints.save([], NOW_MS + 1)
    assert await newest(checkpoints) == (NOW_MS + 1, [])
    assert await pools.recorder.fetchval("SELECT count(*) FROM counter_checkpoints") == 1


async def test_a_checkpoint_of_an_earlier_moment_replaces_one_of_a_later(pools: Pools) -> None:
    """The clock was put back: events are received at earlier moments than that of the last checkpoint."""
    checkpoints = Checkpoints(pools.recorder)
    await checkpoints.save([b"later"], NOW_MS)
    await checkpoints.save([b"last"], NOW_MS - 3_600_000)
    assert await newest(checkpoints) == (NOW_MS - 3_600_000, [b"last"])


async def test_two_checkpoints_of_one_moment_do_not_mix(pools: Pools) -> None:
    checkpoints = Checkpoints(pools.recorder)
    await checkpoints.save([b"old"], NOW_MS)
    await checkpoints.save([b"new", b"more"], NOW_MS)
    assert await newest(checkpoints) == (NOW_MS, [b"new", b"more"])


async def test_what_is_still_to_be_judged_dates_a_checkpoint(pools: Pools) -> None:
    """It is stored by the moment when it was received, however much later: a start that reads from this checkpoint on has to see it."""
    checkpoints, spools = Checkpoints(pools.recorder), Spools(pools.recorder)
    await spools.note(uuid4(), NOW_MS - 9 * DAY_MS, NOW_MS - 2 * DAY_MS)
    await checkpoints.save([], NOW_MS)
    assert await checkpoints.taken_at_ms() == NOW_MS, "a machine that is silent for a day is given up"
    await spools.note(uuid4(), NOW_MS - HOUR_MS, NOW_MS)
    await checkpoints.save([], NOW_MS)
    assert await checkpoints.taken_at_ms() == NOW_MS - HOUR_MS
    await pools.recorder.execute(WAITS, from_ms(NOW_MS - 2 * HOUR_MS))
    await checkpoints.save([], NOW_MS)
    assert await checkpoints.taken_at_ms() == NOW_MS - 2 * HOUR_MS


async def test_requests_are_answered_between_the_parts(pools: Pools) -> None:
    """A dump takes seconds where there are many viewers."""
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    seen = []

    def parts() -> Iterator[bytes]:
        for number in range(5):
            seen.append(turns)
            yield b"part %d" % number

    turning = asyncio.create_task(turn())
    await Checkpoints(pools.recorder).save(parts(), NOW_MS)
    turning.cancel()
    assert len(set(seen)) == 5


async def test_half_a_checkpoint_is_none(pools: Pools) -> None:
    checkpoints = Checkpoints(pools.recorder)
    await checkpoints.save([b"whole"], NOW_MS)
    await pools.recorder.execute(
        "INSERT INTO counter_checkpoints SELECT max(taken_at) + interval '1 s', 0, 2, 'half' FROM counter_checkpoints"
    )
    assert await newest(checkpoints) == (NOW_MS, [b"whole"])


async def test_every_epoch_is_later_than_the_one_before(pools: Pools) -> None:
    epochs = Epochs(pools.recorder)
    assert await epochs.open(NOW_MS) < await epochs.open(NOW_MS)
