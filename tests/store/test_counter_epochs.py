"""When the counts in Redis are whole, who rebuilds them when they are not, and that nothing is counted meanwhile."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest
import redis
from msgspec.structs import replace
from redis_servers import RedisCluster, RedisServer, needs_redis
from waiting import until_a_lock_is_waited_for
from world import NOW_MS, World, superuser

from adserve.domain.events import Outcome
from adserve.domain.tickets import Ticket
from adserve.domain.time import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS
from adserve.limits.counters import CountersAway
from adserve.limits.erased import Erased
from adserve.limits.reservations import Candidate, Reservation
from adserve.limits.rules import Rule, campaign_key, hide_key, keys_counted
from adserve.metering.pending import Pending
from adserve.store.counters import MemoCodec, RedisCounters
from adserve.store.epochs import Epochs, Turn
from adserve.store.errors import Away
from adserve.store.pasts import Pasts
from adserve.store.shared_counters import SharedCounters

pytestmark = needs_redis
CODEC = MemoCodec(lambda memo: [b""], lambda parts, grant: None)
CAP = Rule(campaign_key(1), 1, 180 * DAY_MS)
LONG_AGO_MS = NOW_MS - 100 * DAY_MS


@pytest.fixture(scope="module", params=["redis", "cluster"])
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer | RedisCluster]:
    started = RedisServer() if request.param == "redis" else RedisCluster()
    yield started
    started.end()


class Process:
    """What one process has of the counters."""

    def __init__(self, world: World, url: str, epochs: Epochs | None = None) -> None:
        async def settle_pending(counters: RedisCounters, now_ms: int) -> int:
            return await Pending(world.journal, counters).settle(counters, now_ms)

        self.world = world
        self.keeper = SharedCounters(
            url, CODEC, epochs or Epochs(world.pools.recorder), world.journal, settle_pending
        )
        self.counters = self.keeper.counters
        self._tickets = 0

    async def step(self) -> "Process":
        await self.keeper.step(NOW_MS)
        return self

    @property
    def ready(self) -> bool:
        return self.counters.nodes is not None

    async def reserve(self, ticket: Ticket, viewer: bytes | None = None) -> bool:
        hide = Rule(hide_key(ticket.advertiser), 1, 10**10)
        keys = keys_counted(ticket.ad, ticket.campaign, ticket.advertiser, ())
        ask = Reservation(
            decision=ticket.decision,
            candidates=[Candidate(ticket.advertiser, 1, keys, (CAP, hide))],
            tickets=[ticket.ticket],
            expires_at_ms=ticket.expires_at_ms,
        )
        return bool((await self.counters.reserve(ticket.viewer_cap, ask, NOW_MS + SECOND_MS)).reserved)


@pytest.fixture
async def processes(
    world: World, server: RedisServer | RedisCluster
) -> AsyncIterator[tuple[Process, Process]]:
    server.run("FLUSHALL")
    both = Process(world, server.url), Process(world, server.url)
    yield both
    for process in both:
        process.keeper.close()
    await asyncio.sleep(0)


def capped(world: World, lease: int, viewer: bytes) -> Ticket:
    return world.ticket(lease, viewer_cap=viewer, campaign=1, rules=(tuple(CAP),), labels=())


async def test_a_first_process_begins_an_epoch_and_a_second_one_joins_it(
    processes: tuple[Process, Process],
) -> None:
    first, second = processes
    with pytest.raises(CountersAway):
        await first.counters.recall(b"v" * 16, None, NOW_MS)
    await first.step()
    await second.step()
    assert first.ready
    assert second.ready
    assert first.counters.epoch == second.counters.epoch == 1
    assert first.keeper.done.is_set()


@pytest.mark.parametrize("lost", [0, -1])
async def test_a_loss_is_seen_by_the_very_call_and_made_up_for_from_the_log(
    world: World, processes: tuple[Process, Process], server: Any, lost: int
) -> None:
    """In a cluster the loss of any one node is."""
    first, second = processes
    await first.step()
    await second.step()
    lease = await world.lease(1_000_000)
    viewers = [bytes([number]) * 16 for number in range(30)]
    tickets = [capped(world, lease, viewer) for viewer in viewers]
    for ticket in tickets:
        assert await first.reserve(ticket)
        assert await first.counters.confirm(ticket, NOW_MS, NOW_MS)
    hidden = world.event(capped(world, lease, b"h" * 16), "hide", Outcome.UNBILLED_KIND)
    stored = [*map(world.event, tickets), hidden]
    await world.journal.settle([replace(event, received_at_ms=LONG_AGO_MS) for event in stored])

    nodes = getattr(server, "nodes", [server])
    nodes[lost].run("FLUSHALL")
    refused = 0
    for viewer in viewers:
        try:
            assert not await second.reserve(capped(world, lease, viewer)), "no viewer is counted wrongly"
        except CountersAway:
            refused += 1
    assert refused
    await second.step()
    await first.step()
    for process in processes:
        await process.step()
        assert process.ready
        assert process.counters.epoch == 2
        for viewer in viewers:
            assert not await process.reserve(capped(world, lease, viewer))
        assert not await process.reserve(capped(world, lease, b"h" * 16)), "it is hidden"


class IgnoresTheEpoch(RedisCounters):
    """A broken twin: it counts on whatever is there."""

    async def _ask(self, *given: Any) -> Any:
        assert self.nodes is not None
        for node in self.nodes.all:
            await node.call(("SET", node.token_key, node.token), 1_000)
        return await super()._ask(*given)


async def test_control_counters_that_ignore_the_epoch_show_more_than_the_cap(
    world: World, processes: tuple[Process, Process], server: Any
) -> None:
    first, _ = processes
    await first.step()
    broken = IgnoresTheEpoch(CODEC)
    broken.nodes = first.counters.nodes
    first.counters = broken
    lease = await world.lease(10_000)
    one, two = (capped(world, lease, b"v" * 16) for _ in range(2))
    assert await first.reserve(one)
    assert await broken.confirm(one, NOW_MS, NOW_MS)
    server.run("FLUSHALL")
    assert await first.reserve(two)
    assert await broken.confirm(two, NOW_MS, NOW_MS), "two within an hour, where one is the most"


async def test_pending_events_are_counted_before_an_epoch_opens(
    world: World, processes: tuple[Process, Process]
) -> None:
    lease = await world.lease(10_000)
    waiting = capped(world, lease, b"v" * 16)
    await world.journal.settle([world.event(waiting, outcome=Outcome.ACCEPTED)])
    first, _ = processes
    await first.step()
    assert not await first.reserve(capped(world, lease, b"v" * 16))
    assert [kept.outcome for kept in await world.journal.of_ticket(waiting)] == [Outcome.RECORDED]


async def test_only_one_process_rebuilds(world: World, processes: tuple[Process, Process]) -> None:
    await asyncio.gather(*(process.step() for process in processes))
    assert await world.pools.recorder.fetchval("SELECT count(*) FROM counter_epochs") == 1
    for process in processes:
        await process.step()
        assert process.ready


async def test_an_epoch_begun_elsewhere_ends_this_one(
    world: World, processes: tuple[Process, Process]
) -> None:
    """As by a process that counted in its own memory meanwhile: what that one counted is in the log."""
    first, _ = processes
    await first.step()
    await world.pools.recorder.execute("INSERT INTO counter_epochs (opened_at) VALUES (now())")
    await first.step()
    assert first.counters.epoch == 3


async def test_what_an_epoch_that_is_over_reserved_is_not_believed(
    world: World, processes: tuple[Process, Process], server: Any
) -> None:
    """As after a restart from a dump: since that was made a reservation may have been released, and its place taken."""
    first, _ = processes
    await first.step()
    lease = await world.lease(10_000)
    released, other = (capped(world, lease, b"v" * 16) for _ in range(2))
    assert await first.reserve(other)
    await world.pools.recorder.execute("INSERT INTO counter_epochs (opened_at) VALUES (now())")
    await first.step()
    assert await first.reserve(released)
    assert await first.counters.confirm(released, NOW_MS + SECOND_MS, NOW_MS + SECOND_MS)
    assert not await first.counters.confirm(other, NOW_MS + SECOND_MS, NOW_MS + SECOND_MS)


class LosesEverythingLate(Turn):
    """Redis is emptied when the counts were rebuilt and nobody has been told yet."""

    def __init__(self, turn: Turn, server: Any) -> None:
        super().__init__(turn._connection)
        self._server = server
        self._opened = False

    async def open_epoch(self, now_ms: int) -> int:
        self._opened = True
        return await super().open_epoch(now_ms)

    async def newest(self) -> int:
        if self._opened:
            self._server.run("FLUSHALL")
        return await super().newest()


class Unlucky(Epochs):
    server: Any = None

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[Turn | None]:
        async with super().turn() as turn:
            yield turn and (LosesEverythingLate(turn, self.server) if self.server else turn)


async def test_what_is_lost_while_it_is_rebuilt_is_rebuilt_again(world: World, server: Any) -> None:
    epochs = Unlucky(world.pools.recorder)
    epochs.server = server
    lease = await world.lease(10_000)
    await world.journal.settle([world.event(capped(world, lease, b"v" * 16))])
    process = await Process(world, server.url, epochs).step()
    assert not process.ready
    epochs.server = None
    await process.step()
    assert process.ready
    assert not await process.reserve(capped(world, lease, b"v" * 16))
    process.keeper.close()


async def test_what_a_lost_epoch_counted_is_judged_by_the_next(
    world: World, processes: tuple[Process, Process]
) -> None:
    """An impression is on its way to the log when the counts are lost: the rebuilding cannot see it."""
    first, _ = processes
    await first.step()
    lease = await world.lease(10_000)
    slow, other = (capped(world, lease, b"v" * 16) for _ in range(2))
    counted = replace(world.event(slow), counted_in=first.counters.epoch)
    await world.pools.recorder.execute("INSERT INTO counter_epochs (opened_at) VALUES (now())")
    await first.step()
    assert await first.reserve(other)
    (settled,) = await world.journal.settle([counted])
    assert settled.outcome is Outcome.ACCEPTED
    await Pending(world.journal, first.counters).step(NOW_MS + SECOND_MS)
    assert [kept.outcome for kept in await world.journal.of_ticket(slow)] == [Outcome.OVER_CAP]


async def test_an_epoch_waits_for_what_the_one_before_counted_to_be_stored(
    world: World, database_url: str
) -> None:
    storing = await superuser(database_url)
    async with storing.transaction():
        await storing.execute("SELECT believe_epoch(0)")
        async with Epochs(world.pools.recorder).turn() as turn:
            assert turn is not None
            opening = asyncio.create_task(turn.open_epoch(NOW_MS))
            await until_a_lock_is_waited_for(database_url)
            assert not opening.done()
            await storing.execute("SELECT believe_epoch(0)")
            await storing.execute("COMMIT; BEGIN")
            assert await opening == 1
    for epoch in (0, 2):  # 2 is known to whoever counted before the database was put back to this moment
        with pytest.raises(asyncpg.ObjectNotInPrerequisiteStateError):
            await storing.execute("SELECT believe_epoch($1)", epoch)
    await storing.close()


class WithoutPostgres(Epochs):
    away = False

    async def newest(self) -> int:
        if self.away:
            raise Away("gone")
        return await super().newest()


async def test_without_postgresql_a_known_epoch_holds_on_and_none_is_begun(
    world: World, processes: tuple[Process, Process], server: Any
) -> None:
    epochs = WithoutPostgres(world.pools.recorder)
    process = Process(world, server.url, epochs)
    await process.step()
    epochs.away = True
    await process.step()
    assert process.ready
    stranger = await Process(world, server.url, epochs).step()
    assert not stranger.ready
    process.keeper.close()


async def test_a_server_that_evicts_is_refused(
    world: World, processes: tuple[Process, Process], server: Any
) -> None:
    server.run("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    server.run("CONFIG", "SET", "maxmemory", "100mb")
    try:
        first, _ = processes
        await first.step()
        assert not first.ready
        assert "noeviction" in first.keeper.detail
    finally:
        server.run("CONFIG", "SET", "maxmemory", "0")


async def test_a_hide_that_could_not_be_told_is_told_later(
    world: World, processes: tuple[Process, Process], server: Any
) -> None:
    first, _ = processes
    await first.step()
    lease = await world.lease(10_000)
    ticket = capped(world, lease, b"v" * 16)
    first.keeper.close()
    await world.journal.settle([world.event(ticket, "hide", Outcome.UNBILLED_KIND)])
    await first.counters.hide(ticket, NOW_MS)
    await first.step()
    assert not await first.reserve(capped(world, lease, b"v" * 16))


class NeverForgets(Pasts):
    """A broken twin."""

    def age(self, now_ms: int) -> None:
        pass


async def assumes_within_the_hour(process: Process, viewer: bytes) -> list[bool]:
    """Whether it does after each ten minutes in which nothing is heard of the viewer, and no erasure either."""
    await (await process.step()).counters.recall(viewer, None, NOW_MS)
    assumes = []
    for now_ms in range(NOW_MS, NOW_MS + HOUR_MS, 10 * MINUTE_MS):
        await process.keeper.step(now_ms)
        assumes.append(process.counters.assumed(viewer, now_ms) is not None)
    return assumes


async def test_what_was_heard_of_a_viewer_is_forgotten_within_the_hour(
    processes: tuple[Process, Process],
) -> None:
    """So that an erasure holds where nobody was told of it."""
    first, second = processes
    assert await assumes_within_the_hour(first, b"v" * 16) == [True] * 4 + [False] * 2
    second.counters.pasts = NeverForgets(Erased())  # the control
    assert all(await assumes_within_the_hour(second, b"v" * 16))


async def test_a_server_that_is_not_there_is_named(world: World, server: Any) -> None:
    process = await Process(world, "redis://127.0.0.1:1").step()
    assert not process.ready
    assert process.keeper.detail.startswith("away: redis at 127.0.0.1:1")


async def test_a_password_and_a_database_are_taken_from_the_url(world: World) -> None:
    locked = RedisServer()
    try:
        locked.run("CONFIG", "SET", "requirepass", "p@ss")
        for url, ready in ((locked.url, False), (locked.url.replace("//", "//:p%40ss@"), True)):
            process = await Process(world, url + "/2").step()
            assert process.ready is ready, process.keeper.detail
            process.keeper.close()
        with redis.Redis.from_url(locked.url.replace("//", "//:p%40ss@") + "/2") as client:
            assert client.exists("adserve:counters")
    finally:
        locked.end()
