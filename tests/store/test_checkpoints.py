from world import NOW_MS

from adserve.database.pools import Pools
from adserve.store.checkpoints import Checkpoints


async def test_the_newest_whole_checkpoint_is_found(pools: Pools) -> None:
    checkpoints = Checkpoints(pools.recorder)
    assert await checkpoints.newest() is None
    await checkpoints.save([b"one", b"two"], NOW_MS)
    assert await checkpoints.newest() == (NOW_MS, [b"one", b"two"])
    await checkpoints.save([], NOW_MS + 1)
    assert await checkpoints.newest() == (NOW_MS + 1, [])
    assert await pools.recorder.fetchval("SELECT count(*) FROM counter_checkpoints") == 1


async def test_half_a_checkpoint_is_none(pools: Pools) -> None:
    checkpoints = Checkpoints(pools.recorder)
    await checkpoints.save([b"whole"], NOW_MS)
    await pools.recorder.execute(
        "INSERT INTO counter_checkpoints SELECT taken_at + interval '1 s', 0, 2, 'half' FROM counter_checkpoints"
    )
    assert await checkpoints.newest() == (NOW_MS, [b"whole"])


async def test_every_epoch_is_later_than_the_one_before(pools: Pools) -> None:
    checkpoints = Checkpoints(pools.recorder)
    assert await checkpoints.open_epoch(NOW_MS) < await checkpoints.open_epoch(NOW_MS)
