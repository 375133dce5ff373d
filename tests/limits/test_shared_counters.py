"""Counters in Redis beyond the contract: they are small, vanish by themselves, and refuse to count in another epoch."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis
from counting import (
    START_MS,
    TTL_MS,
    VIEWER,
    A,
    B,
    Shown,
    campaign_cap,
    capped,
    reservation,
    reserve_one,
    ticket_id,
)
from hypothesis import Phase
from keepers import keeping
from msgspec import structs
from redis_servers import needs_redis
from shared import TEXT, FreshCounters
from test_caps_are_exact import USES, Use, put_through
from waiting import PATIENCE_MS, happens

from adserve.domain.events import EventKind, Outcome
from adserve.domain.facts import EXPOSURE_WINDOW_MS
from adserve.domain.tickets import Ticket
from adserve.domain.time import DAY_MS
from adserve.limits.counters import OPEN_MAX, CountersAway
from adserve.limits.erased import tombstone_of
from adserve.limits.reservations import PastDiffers
from adserve.limits.rules import ALL, GRACE_MS, RETENTION_MS, campaign_key
from adserve.metering.errors import JournalAway
from adserve.store.counters import RedisCounters, Restored
from adserve.store.journal import Counted
from adserve.store.spool import Waiting
from adserve.store.spools import EventLog
from adserve.store.wire import CONFIRMED, HIDDEN, REFUSED, event_of
from adserve.store.wire import Shown as Logged

pytestmark = needs_redis
VIEWER_BYTES_MAX = 450


@pytest.fixture
async def shared(redis_url: str) -> AsyncIterator[FreshCounters]:
    counters = FreshCounters(redis_url, 1)
    yield counters
    counters.close()


def keys_of(url: str) -> dict[bytes, int]:
    """What each key but the token takes."""
    with redis.Redis.from_url(url) as client:
        return {key: client.memory_usage(key) for key in client.keys("ads:*")}


class UseOfShared(Use):
    def teardown(self) -> None:
        self.counters.close()
        self.runner.run(asyncio.sleep(0))
        super().teardown()


USES["shared"] = UseOfShared


@pytest.mark.parametrize("kind", ["redis", "cluster"])
def test_no_window_ever_exceeds_its_cap(kind: str, request: pytest.FixtureRequest) -> None:
    url = request.getfixturevalue(f"{kind}_url")
    put_through("shared", lambda epoch: FreshCounters(url, epoch), max_examples=60)


class ForgetsReservations(FreshCounters):
    """A broken twin: what is reserved is given back at once."""

    async def reserve(self, viewer: bytes, ask: Any, *given: Any) -> Any:
        grant = await super().reserve(viewer, ask, *given)
        for place, ticket in zip(grant.reserved, ask.tickets, strict=False):
            lost = A._replace(ad=place).ticket(ticket, viewer)
            await self.release(lost, given[0])
        return grant

    async def confirm(self, ticket: Any, *given: Any) -> bool:
        await super().confirm(ticket, *given)
        return True


def test_control_broken_shared_counters_are_noticed(redis_url: str) -> None:
    with pytest.raises(AssertionError, match="impressions in a window"):
        put_through(
            "shared",
            lambda epoch: ForgetsReservations(redis_url, epoch),
            max_examples=100,
            phases=[Phase.generate],
            print_blob=False,
        )


async def test_five_live_pairs_of_two_entries_take_at_most_450_bytes(
    shared: FreshCounters, redis_url: str
) -> None:
    """With ids of a catalogue of millions, and a label; half of the entries reserved, half confirmed."""
    number = 0
    for pair in range(5):
        ad = Shown(9_000_000 + pair, 7_000_000 + pair, 5_000_000 + pair, labels=("drinks",))
        for counted in (False, True):
            number += 1
            assert await reserve_one(shared, ad, number)
            if counted:
                assert await shared.confirm(ad.ticket(ticket_id(number)), START_MS, START_MS)
    assert await shared.usage(VIEWER, [(ALL, DAY_MS)], START_MS) == [10]
    (took,) = keys_of(redis_url).values()
    assert took <= VIEWER_BYTES_MAX


async def test_keys_expire_by_themselves(shared: FreshCounters, redis_url: str) -> None:
    ask = reservation([A], [ticket_id(1)], request="r-1", memo="kept")
    await shared.reserve(VIEWER, ask, START_MS)
    with redis.Redis.from_url(redis_url) as client:
        left_ms = sorted(client.pttl(key) for key in client.keys("ads:*"))
        assert len(left_ms) == 2
        assert TTL_MS < left_ms[0] <= left_ms[1] <= TTL_MS + 2 * GRACE_MS
        await shared.confirm(A.ticket(ticket_id(1)), START_MS, START_MS)
        (longest_ms,) = [left for key in client.keys("ads:*") if (left := client.pttl(key)) > DAY_MS]
        assert RETENTION_MS < longest_ms <= RETENTION_MS + GRACE_MS
        client.delete(*client.keys("ads:*"))
        await shared.hide(A.ticket(ticket_id(1)), START_MS)
        shown = event_of(*A[:3], ticket_id(2), CONFIRMED, START_MS)
        await shared.fill({b"f" * 16: [Logged(b"f" * 16, (), shown, START_MS)]}, START_MS)
        left_ms = sorted(client.pttl(key) for key in client.keys("ads:*"))
        assert len(left_ms) == 2
        assert RETENTION_MS < left_ms[0] <= left_ms[1] <= RETENTION_MS + GRACE_MS


async def test_nothing_is_left_of_a_viewer_without_entries(shared: FreshCounters, redis_url: str) -> None:
    assert await reserve_one(shared, A, 1)
    assert await shared.release(A.ticket(ticket_id(1)), START_MS)
    assert keys_of(redis_url) == {}


@pytest.mark.parametrize("loss", ["FLUSHALL", "another epoch"])
async def test_nothing_is_counted_in_another_epoch(shared: FreshCounters, redis_url: str, loss: str) -> None:
    ad = capped(1)
    assert await reserve_one(shared, ad, 1)
    with redis.Redis.from_url(redis_url) as client:
        if loss == "FLUSHALL":
            client.flushall()
        else:
            client.set("adserve:counters", "2")
    with pytest.raises(CountersAway, match="EPOCH"):
        await reserve_one(shared, ad, 2)
    with pytest.raises(CountersAway, match="EPOCH"):
        await shared.confirm(ad.ticket(ticket_id(1)), START_MS, START_MS)


async def test_the_event_log_overrules_a_reservation_but_not_a_decision(shared: FreshCounters) -> None:
    ad = capped(3)
    for number in (1, 2):
        assert await reserve_one(shared, ad, number)
    entries = [
        Restored(ticket_id(1), False, START_MS, ad.keys),
        Restored(ticket_id(2), True, START_MS, ad.keys),
        Restored(ticket_id(2), False, START_MS, ad.keys),
        Restored(ticket_id(3), True, START_MS, ad.keys),
    ]
    await shared.restore(VIEWER, entries, {B.advertiser: START_MS}, START_MS)
    assert not await shared.confirm(ad.ticket(ticket_id(1)), START_MS, START_MS)
    assert await shared.confirm(ad.ticket(ticket_id(2)), START_MS, START_MS)
    assert await shared.usage(VIEWER, [(campaign_cap(1, 1, 1).key, DAY_MS)], START_MS) == [2]
    assert not await reserve_one(shared, B, 4)


async def test_what_a_viewer_has_seen_is_assumed_and_looked_at_when_it_counts(
    shared: FreshCounters, redis_url: str
) -> None:
    """Another process confirms what this one does not hear of."""
    other = RedisCounters(TEXT)
    await shared.open()
    other.nodes = shared.nodes
    assert shared.assumed(VIEWER, START_MS) is None, "nothing is known yet"
    for number in (1, 2):
        assert await reserve_one(shared, A, number)
    assert await shared.confirm(A.ticket(ticket_id(1)), START_MS, START_MS)
    assumed = shared.assumed(VIEWER, START_MS)
    assert assumed is not None
    assert assumed.exposures == {ALL: 1, campaign_key(1): 1}
    ask = structs.replace(reservation([B], [ticket_id(3)]), assumed=assumed.assumed)
    assert (await shared.reserve(VIEWER, ask, START_MS)).reserved == (0,)

    assert await other.confirm(A.ticket(ticket_id(2)), START_MS, START_MS)
    with pytest.raises(PastDiffers) as differs:
        await shared.reserve(VIEWER, structs.replace(ask, tickets=[ticket_id(4)]), START_MS)
    assert differs.value.past == await shared.recall(VIEWER, None, START_MS)
    assert differs.value.past.exposures == {ALL: 2, campaign_key(1): 2}
    assert await shared.usage(VIEWER, [(ALL, DAY_MS)], START_MS) == [3], "nothing was reserved"
    assert shared.assumed(VIEWER, START_MS) == other.assumed(VIEWER, START_MS), "and it has learnt"
    week_later_ms = START_MS + EXPOSURE_WINDOW_MS
    with pytest.raises(PastDiffers):
        await shared.reserve(VIEWER, structs.replace(ask, tickets=[ticket_id(5)]), week_later_ms)


async def test_of_a_viewer_who_is_being_erased_nothing_is_assumed_or_learnt(shared: FreshCounters) -> None:
    """Every process forgets what it heard of him, one of them empties Redis."""
    await shared.recall(VIEWER, None, START_MS)
    assert shared.assumed(VIEWER, START_MS) is not None
    await shared.pasts.erase(VIEWER)
    assert shared.assumed(VIEWER, START_MS) is None
    shared._erased.learn({tombstone_of(VIEWER): START_MS + 1})
    await shared.confirm(A.ticket(ticket_id(1)), START_MS, START_MS)
    assert shared.assumed(VIEWER, START_MS + 1) is None


async def test_many_entries_are_read_as_a_few_are(shared: FreshCounters) -> None:
    """What one call of C reads is bounded, and a group is not."""
    cap = capped(OPEN_MAX)
    for number in range(OPEN_MAX):
        assert await reserve_one(shared, A, number)
    assert await shared.confirm(A.ticket(ticket_id(OPEN_MAX - 1)), START_MS, START_MS)
    assert await shared.usage(VIEWER, [(ALL, DAY_MS)], START_MS) == [OPEN_MAX]
    assert not await reserve_one(shared, cap, OPEN_MAX)
    assert await shared.release(A.ticket(ticket_id(0)), START_MS)
    assert await reserve_one(shared, cap, OPEN_MAX)
    states = [entry.state for entry in (await shared.held(VIEWER)).entries]
    assert (states.count("reserved"), states.count("confirmed")) == (OPEN_MAX - 1, 1)


async def test_many_viewers_are_filled_as_each_would_be_restored(shared: FreshCounters) -> None:
    """A ticket's first event that counts decides, in whatever order they are told; what was decided before an erasure is gone."""
    confirmed, refused = True, False
    ads = [Shown(1, 1, 1), Shown(2, 2, 1, labels=("drinks",)), Shown(3_000_000, 3, 70_000)]
    happened = [  # ad, ticket, counted, moment
        (0, 1, confirmed, 5), (0, 2, refused, 7), (0, 2, confirmed, 9), (1, 3, confirmed, 9), (1, 3, refused, 8), (2, 4, confirmed, 6),
    ]  # fmt: skip  # laid out as rows
    for viewer, erased_at_ms in ((b"a" * 16, 0), (b"b" * 16, START_MS + 7)):
        shared._erased.learn({tombstone_of(viewer): erased_at_ms})
        entries = [
            Restored(ticket_id(ticket), state, START_MS + at_ms, ads[ad].keys)
            for ad, ticket, state, at_ms in sorted(happened, key=lambda one: one[3])
        ]
        await shared.restore(viewer, entries, {1: START_MS + 8}, START_MS)
        restored = await shared.held(viewer)
        await shared.erase(viewer)
        events = [
            event_of(*ads[ad][:3], ticket_id(ticket), CONFIRMED if counted else REFUSED, START_MS + at_ms)
            for ad, ticket, counted, at_ms in happened
        ]
        hides = [event_of(*ads[0][:3], ticket_id(1), HIDDEN, START_MS + at_ms) for at_ms in (8, 1)]
        told = [
            Logged(viewer, (), b"".join(events[:2] + hides), START_MS + 9),
            Logged(viewer, ads[1].labels, b"".join(events[3:5]), START_MS + 9),
            Logged(viewer, (), events[2] + events[5], START_MS + 9),
        ]
        await shared.fill({viewer: told}, START_MS)
        filled = await shared.held(viewer)
        assert set(filled.entries) == set(restored.entries)
        assert len(filled.entries) == len(restored.entries) == (2 if erased_at_ms else 4)
        assert {entry.state for entry in filled.entries} == {"confirmed"}
        assert filled.hides == restored.hides


class Spool:
    """Holds one event."""

    def __init__(self, event: Counted) -> None:
        self._event = event

    async def counted(self) -> AsyncIterator[Counted]:
        yield self._event

    async def waiting(self) -> Waiting:
        return Waiting(1, 0, START_MS)

    async def hides(self, _since_ms: int) -> list[tuple[bytes, int, int]]:
        return []


class EmptyJournal:
    """It cannot even say that it is."""

    async def count_since(self, _received_at_ms: int) -> int:
        raise JournalAway("the statement took too long")

    async def hides(self, _since_ms: int, _most: int) -> list[tuple[bytes, int, int]]:
        return []

    async def shown_since(self, _received_at_ms: int) -> AsyncIterator[Logged]:
        for none in ():
            yield none


def log_of(ticket: Ticket) -> EventLog:
    told = Counted(
        ticket.ticket, VIEWER, ticket.ad, ticket.campaign, ticket.advertiser, (), EventKind.IMPRESSION, Outcome.RECORDED, START_MS,
        ticket.expires_at_ms, settled=False,
    )  # fmt: skip  # laid out as rows
    return EventLog(EmptyJournal(), Spool(told))  # type: ignore[arg-type]  # twins with what is asked here


async def fill_from_a_spool(shared: FreshCounters, ticket: Ticket) -> None:
    await shared.open()
    await shared.fill({VIEWER: [shown async for shown in log_of(ticket).shown_since(START_MS)]}, START_MS)


async def test_a_log_that_takes_too_long_to_be_counted_is_read_all_the_same(redis_url: str) -> None:
    async with keeping(redis_url, log_of(A.ticket(ticket_id(1)))) as keeper:
        await keeper.step(START_MS)
        assert keeper.counters.filled, keeper.detail
        assert await keeper.counters.usage(VIEWER, [(ALL, DAY_MS)], START_MS) == [1]


async def test_what_is_spooled_and_came_again_may_be_stored_with_the_later_moment(
    shared: FreshCounters,
) -> None:
    """The second goes straight into the ledger, and the first is a duplicate when it leaves the spool."""
    ad = capped(1, window_s=60)
    ticket, again_ms = ad.ticket(ticket_id(1)), START_MS + 59_999
    await fill_from_a_spool(shared, ticket)
    assert await shared.confirm(ticket, again_ms, again_ms)
    assert not await reserve_one(shared, ad, 2, START_MS + 60_000)


async def test_what_is_spooled_of_a_viewer_who_was_erased_since_is_not_put_back(
    shared: FreshCounters,
) -> None:
    shared._erased.learn({tombstone_of(VIEWER): START_MS + 1})
    await fill_from_a_spool(shared, A.ticket(ticket_id(1)))
    assert (await shared.held(VIEWER)).entries == []


async def test_a_silent_server_is_waited_for_no_longer_than_told(shared: FreshCounters) -> None:
    await shared.open()
    assert shared.nodes is not None
    (node,) = shared.nodes.all

    async def is_given_up_in_time() -> bool:
        held = asyncio.ensure_future(node.call(("DEBUG", "SLEEP", "0.3"), PATIENCE_MS))
        try:
            await shared.recall(VIEWER, None, START_MS, 30)
        except TimeoutError:
            return not held.done()
        finally:
            await held
        return False

    assert await happens(is_given_up_in_time)
    assert (await shared.recall(VIEWER, None, START_MS, PATIENCE_MS)).exposures == {}, (
        "replies keep their order"
    )
