"""Says when the counts in Redis are whole, and rebuilds them when they are not.

Each node holds a token: the epoch, and which server it was given to. A node that was emptied, restarted or replaced by a replica
does not have the token that it should, and no process counts on it: not before one of them has filled all nodes from the event log
under a new epoch. docs/adr/0004 says what this is proof against.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from prometheus_client import Counter

from adserve.domain.time import HOUR_MS, SECOND_MS
from adserve.limits.counters import CountersAway
from adserve.limits.erased import Erased
from adserve.limits.rebuild import so_many
from adserve.limits.rules import RETENTION_MS
from adserve.metering.errors import JournalAway
from adserve.store.counters import UNTOLD_MAX, MemoCodec, RedisCounters, tag_of
from adserve.store.epochs import Epochs
from adserve.store.errors import Away
from adserve.store.redis_node import CONNECT_MS, LIBRARY, Node, identity_of
from adserve.store.redis_nodes import Nodes, connect_all, place_of
from adserve.store.wire import EVENT_BYTES, Shown

log = logging.getLogger(__name__)

AT_ONCE = 200
"""How many viewers are put back before requests have their turn."""
AHEAD = 10
"""So many times AT_ONCE are read while others are put back: PostgreSQL, Redis and this process work at the same time."""
SCANNED = 1_000
HIDES_BACK_MS = HOUR_MS
"""A process that died may not have told the hides of its last moments: the next one tells those of this long."""
HIDES_OVERLAP_MS = 10 * SECOND_MS
HIDES_MAX = 100_000

REBUILT = Counter("adserve_counter_epochs", "Epochs of the shared counters that this process began")


class EventLog(Protocol):
    def shown_since(self, received_at_ms: int) -> AsyncIterator[Shown]:
        """One viewer after the other."""
        ...

    async def count_since(self, received_at_ms: int) -> int | None:
        """None where it would take too long to say."""
        ...

    async def hides(self, since_ms: int, most: int) -> list[tuple[bytes, int, int]]: ...


Viewers = Mapping[bytes, Sequence[Shown]]
SettlePending = Callable[[RedisCounters, int], Awaitable[int]]


class SharedCounters:
    """Keeps `counters` true. `detail` says how they are; `done` is set when they were ready for the first time."""

    def __init__(
        self,
        url: str,
        codec: MemoCodec,
        epochs: Epochs,
        events: EventLog,
        settle_pending: SettlePending,
        erased: Erased | None = None,
    ) -> None:
        self.counters = RedisCounters(codec, erased)
        self.detail = "not connected yet"
        self.done = asyncio.Event()
        self.wake = asyncio.Event()
        self._place = place_of(url)
        self._codec = codec
        self._erased = erased
        self._epochs = epochs
        self._events = events
        self._settle_pending = settle_pending
        self._nodes: Nodes | None = None

    async def step(self, now_ms: int) -> None:
        """Looks whether all nodes are those of the newest epoch, and begins one when they are not."""
        self.counters.pasts.age(now_ms)
        try:
            nodes = await self._connected()
            epoch = await self._epoch_of(nodes)
            if epoch is None or epoch != await self._newest(epoch) or self._forgot(epoch):
                self._away("the counts were lost: they are to be rebuilt")
                epoch = await self._begin(nodes, now_ms)
            if epoch is not None:
                await self._ready(nodes, epoch, now_ms)
        except (CountersAway, TimeoutError, Away, JournalAway) as error:
            self._drop(str(error) or "it does not answer")
        except Exception:
            self._drop("a fault of this process")
            raise

    def close(self) -> None:
        self.counters.nodes = None
        if self._nodes is not None:
            self._nodes.close()

    async def _connected(self) -> Nodes:
        """The same connections as long as none of them is broken and each leads to the server that it led to."""
        if self._nodes is not None and self._nodes.alive:
            for node in self._nodes.all:
                if await identity_of(node) != node.identity:
                    raise CountersAway("redis has become another server")
            return self._nodes
        known = [] if self._nodes is None else [node.address for node in self._nodes.all]
        self._nodes = await connect_all(self._place, known, self._drop)
        return self._nodes

    async def _epoch_of(self, nodes: Nodes) -> int | None:
        """The epoch that every node has a token of, made out to itself."""
        epochs = set()
        for node in nodes.all:
            token = await node.call(("GET", node.token_key), CONNECT_MS) or b""
            epoch, _, identity = token.partition(b":")
            if identity != _made_out_to(nodes, node):
                return None
            epochs.add(int(epoch))
        return epochs.pop() if len(epochs) == 1 else None

    async def _newest(self, used: int) -> int:
        """Without PostgreSQL nobody can begin an epoch, so one that we know stays the newest."""
        try:
            return await self._epochs.newest()
        except Away:
            if used == self.counters.epoch:
                return used
            raise

    def _forgot(self, epoch: int) -> bool:
        """Whether there was no room to remember all that is to be doubted in the epoch."""
        return epoch == self.counters.epoch and len(self.counters.untold) == UNTOLD_MAX

    async def _ready(self, nodes: Nodes, epoch: int, now_ms: int) -> None:
        for node in nodes.all:
            node.token = _token(epoch, nodes, node)
        if epoch != self.counters.epoch:  # it was filled with what is stored: nothing in it is in doubt
            self.counters.untold.clear()
        await self._tell_untold(nodes)
        if self.counters.nodes is not nodes:
            log.info("the shared counters are ready", extra={"epoch": epoch})
        self.counters.epoch, self.counters.nodes = epoch, nodes
        self.detail = f"epoch {epoch}, {len(nodes.all)} in redis"
        if not self.done.is_set():
            self.counters.hides_missing_from_ms = now_ms - HIDES_BACK_MS
            self.done.set()
        await self._tell(now_ms)

    async def _tell_untold(self, nodes: Nodes) -> None:
        """What could not be told while the counters were away: before anybody counts on them again."""
        untold, hides = self.counters.untold, self.counters.untold_hides
        telling = RedisCounters(self._codec, self._erased)
        telling.nodes = nodes
        for _ in range(len(untold)):
            await telling.doubt(untold.popleft())
        for _ in range(len(hides)):
            await telling.hide(*hides.popleft())
        untold.extend(telling.untold)
        hides.extend(telling.untold_hides)
        if not nodes.alive:
            raise CountersAway("the connection to redis was lost")

    async def _tell(self, now_ms: int) -> None:
        """The hides that a process that died may not have told, and those that there was no room to remember."""
        missing_from_ms, self.counters.hides_missing_from_ms = self.counters.hides_missing_from_ms, None
        if missing_from_ms is not None:
            try:
                hides = await self._events.hides(missing_from_ms - HIDES_OVERLAP_MS, HIDES_MAX)
                for viewer, advertiser, at_ms in hides:
                    await self.counters.restore(viewer, (), {advertiser: at_ms}, now_ms)
            except BaseException:
                self.counters.hides_missing_from_ms = missing_from_ms
                raise

    async def _begin(self, nodes: Nodes, now_ms: int) -> int | None:
        """A new epoch, unless another process is about to begin one."""
        async with self._epochs.turn() as turn:
            if turn is None:
                self.detail = "another process rebuilds them"
                return None
            found = await self._epoch_of(nodes)
            if found is not None and found == await turn.newest() and not self._forgot(found):
                return found
            epoch = await turn.open_epoch(now_ms)  # what is counted elsewhere from here on is judged again
            for node in nodes.all:  # and from here on nobody counts
                node.token = b"filling:%d" % epoch
                await node.call(("SET", node.token_key, node.token), CONNECT_MS)
            self.detail = "rebuilding"
            for node in nodes.all:
                await _empty(nodes, node)
            filling = RedisCounters(self._codec, self._erased)
            filling.epoch, filling.nodes = epoch, nodes
            read = await self._fill(filling, now_ms)
            settled = await self._settle_pending(filling, now_ms)
            if epoch != await turn.newest():
                raise CountersAway("another process has begun an epoch meanwhile")
            for node in nodes.all:
                if await identity_of(node) != node.identity:
                    raise CountersAway("redis has become another server")
                await _entrust(node, _token(epoch, nodes, node))
        log.warning(
            "the shared counters were rebuilt: %d events, %d pending", read, settled, extra={"epoch": epoch}
        )
        REBUILT.inc()
        return epoch

    async def _fill(self, filling: RedisCounters, now_ms: int) -> int:
        since_ms = now_ms - RETENTION_MS
        ahead: asyncio.Queue[Viewers] = asyncio.Queue(AHEAD)
        filled = 0
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._read(since_ms, ahead), name="reads what was shown")
                expected = await self._events.count_since(since_ms)
                while viewers := await ahead.get():
                    await filling.fill(viewers, now_ms)
                    filled += sum(map(_events_in, viewers.values()))
                    self.detail = f"rebuilding, {so_many(filled, expected)} events"
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        return filled

    async def _read(self, since_ms: int, ahead: asyncio.Queue[Viewers]) -> None:
        """The last that it puts is empty."""
        viewers: dict[bytes, list[Shown]] = {}
        async for shown in self._events.shown_since(since_ms):
            if len(viewers) == AT_ONCE and shown.viewer not in viewers:
                await ahead.put(viewers)
                viewers = {}
            viewers.setdefault(shown.viewer, []).append(shown)
        if viewers:
            await ahead.put(viewers)
        await ahead.put({})

    def _away(self, reason: str) -> None:
        if self.counters.nodes is not None:
            log.warning("the shared counters are away: %s", reason)
        self.counters.nodes = None
        self.detail = f"away: {reason}"

    def _drop(self, reason: str) -> None:
        """Nothing is asked of these connections any more."""
        if self.counters.nodes is not None:
            self.wake.set()
        self._away(reason)
        if self._nodes is not None:
            self._nodes.close()


def _events_in(told: Sequence[Shown]) -> int:
    return sum(len(shown.events) // EVENT_BYTES for shown in told)


def _token(epoch: int, nodes: Nodes, node: Node) -> bytes:
    return b"%d:%b" % (epoch, _made_out_to(nodes, node))


def _made_out_to(nodes: Nodes, node: Node) -> bytes:
    """As one of so many: when another is gone, so are its viewers' counts."""
    return b"%b:%d" % (node.identity, len(nodes.all))


async def _entrust(node: Node, token: bytes) -> None:
    """With all counts, unless it has lost them since it was given the token that we know. Raises CountersAway."""
    await node.call(("FCALL", f"{LIBRARY}_entrust", 0, node.token_key, node.token, token), CONNECT_MS)


async def _empty(nodes: Nodes, node: Node) -> None:
    """A server that was restarted from a dump has viewers of an epoch that is over. One to which a slot was moved in vain may have some that
    are another's: nobody reads them, nor may they be removed by name."""
    cursor = b"0"
    while True:
        cursor, keys = await node.call(("SCAN", cursor, "MATCH", "ads:{*}", "COUNT", SCANNED), CONNECT_MS)
        own = [key for key in keys if nodes.of(tag_of(key)) is node]
        if own:
            await node.call(("FCALL", f"{LIBRARY}_forget", 0, node.token_key, node.token, *own), CONNECT_MS)
        if cursor == b"0":
            return
