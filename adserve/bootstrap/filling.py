"""Which counters a process has, what fills them, and what is kept of them."""

from adserve.database.pools import Pools
from adserve.database.replica_lock import ServingLock
from adserve.database.shared_serving import SharedServing
from adserve.limits.counters import MemoryCounters
from adserve.limits.erased import Erased
from adserve.limits.memos import Memos
from adserve.limits.rebuild import Filling
from adserve.metering.named import Named
from adserve.metering.pending import Pending
from adserve.selection.memo import decode_offer, encode_offer, keep_offer, offer_again
from adserve.settings import Settings, SettingsError
from adserve.store.checkpoints import Checkpoints
from adserve.store.counters import MemoCodec, RedisCounters
from adserve.store.epochs import Epochs
from adserve.store.journal import Journal
from adserve.store.shared_counters import SharedCounters
from adserve.store.spools import EventLog


async def filling_of(
    settings: Settings,
    pools: Pools,
    checkpoints: Checkpoints,
    journal: Journal,
    events: EventLog,
    erased: Erased,
    lock: ServingLock | SharedServing,
    now_ms: int,
) -> Filling | SharedCounters:
    """The counters that go with the lock that is held, and what fills them."""
    if isinstance(lock, ServingLock):
        await lock.end_others()  # opening an epoch would wait for what they are storing
        epoch = await Epochs(pools.recorder).open(now_ms)
        counters = MemoryCounters(epoch, filled=False, memos=Memos(keep_offer, offer_again), erased=erased)
        return Filling(counters, checkpoints, events)

    async def settle_pending(counters: RedisCounters, now_ms: int) -> int:
        return await Pending(journal, counters).settle(Named(counters), now_ms)

    assert settings.redis_url is not None  # noqa: S101 - for the type checker: or the lock would be the other
    codec = MemoCodec(encode_offer, decode_offer)
    try:
        return SharedCounters(
            settings.redis_url, codec, Epochs(pools.recorder), events, settle_pending, erased
        )
    except ValueError as error:  # whose words may quote a password
        raise SettingsError("redis_url: is no URL; a password in it has to be percent-encoded") from error


async def save_checkpoint(
    counters: MemoryCounters | RedisCounters, checkpoints: Checkpoints, now_ms: int
) -> None:
    if isinstance(counters, MemoryCounters) and counters.filled:  # or half of them would replace a whole one
        await checkpoints.save(counters.dump(), now_ms)
