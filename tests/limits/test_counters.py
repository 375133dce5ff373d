"""What counters in memory do beside the contract: they are dumped, loaded, swept and bounded."""

import pytest
from counting import (
    START_MS,
    TTL_MS,
    VIEWER,
    A,
    B,
    Shown,
    campaign_cap,
    capped,
    parts,
    reservation,
    reserve_one,
    ticket_id,
)

from adserve.domain.time import DAY_MS
from adserve.limits.checkpoint import CheckpointUnreadable
from adserve.limits.counters import OPEN_MAX, MemoryCounters
from adserve.limits.rules import GRACE_MS, campaign_key, hide_key


async def test_the_oldest_requests_are_forgotten_when_there_are_too_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("adserve.limits.counters.REQUESTS_MAX", 2)
    counters = MemoryCounters(1)
    for number in range(3):
        await counters.reserve(VIEWER, reservation([A], [ticket_id(number)], request=f"r-{number}"), START_MS)
    remembered = [(await counters.recall(VIEWER, f"r-{number}", START_MS)).earlier for number in range(3)]
    assert [earlier is not None for earlier in remembered] == [False, True, True]


async def test_a_checkpoint_brings_everything_back() -> None:
    counters = MemoryCounters(1)
    ad = capped(2)
    for number in (1, 2):
        assert await reserve_one(counters, ad, number)
    await counters.confirm(ad.ticket(ticket_id(1)), START_MS, START_MS)
    assert not await counters.confirm(ad.ticket(ticket_id(3)), START_MS, START_MS)
    await counters.hide(B.ticket(ticket_id(4)), START_MS)

    again = MemoryCounters(2)
    await again.load(parts(list(counters.dump())), START_MS + 1)
    assert len(again) == 1
    assert not await reserve_one(again, ad, 5)
    assert not await reserve_one(again, B, 6)
    assert not await again.confirm(ad.ticket(ticket_id(3)), START_MS + DAY_MS, START_MS + DAY_MS)
    assert await again.confirm(ad.ticket(ticket_id(2)), START_MS + 1, START_MS + 1)
    assert await again.confirm(ad.ticket(ticket_id(1)), START_MS + 1, START_MS + 1)


async def test_a_reservation_of_a_checkpoint_may_have_been_released_since() -> None:
    ad = capped(1, window_s=60)
    counters, again = MemoryCounters(1), MemoryCounters(2)
    assert await reserve_one(counters, ad, 1)
    checkpoint = list(counters.dump())
    assert await counters.release(ad.ticket(ticket_id(1)), START_MS)
    assert await reserve_one(counters, ad, 2)
    assert await counters.confirm(ad.ticket(ticket_id(2)), START_MS, START_MS)

    await again.load(parts(checkpoint), START_MS)
    again.restore(VIEWER, ticket_id(2), True, START_MS, START_MS + TTL_MS, ad.keys)
    assert not await again.confirm(ad.ticket(ticket_id(1)), START_MS + 1, START_MS + 1), "shown all the same"


async def test_a_reservation_of_a_checkpoint_keeps_its_place_otherwise() -> None:
    ad = capped(1, window_s=60)
    counters, again = MemoryCounters(1), MemoryCounters(2)
    assert await reserve_one(counters, ad, 1)
    await again.load(parts(list(counters.dump())), START_MS)
    assert not await reserve_one(again, ad, 2)
    assert not await again.confirm(ad.ticket(ticket_id(3)), START_MS, START_MS)
    assert await again.confirm(ad.ticket(ticket_id(1)), START_MS, START_MS)


async def test_an_ad_that_is_first_shown_while_a_checkpoint_is_made_is_in_it() -> None:
    counters, again = MemoryCounters(1), MemoryCounters(2)
    viewers = [bytes([number]) * 16 for number in range(3)]
    for number, viewer in enumerate(viewers):
        await counters.reserve(viewer, reservation([capped(2)], [ticket_id(number)]), START_MS)
    whole = []
    for number, part in enumerate(counters.dump(), start=3):
        whole.append(part)
        new = Shown(number, number, number)
        await counters.reserve(viewers[2], reservation([new], [ticket_id(number)]), START_MS)
    await again.load(parts(whole), START_MS)
    shown = [(campaign_key(number), DAY_MS) for number in (1, 3, 4)]
    assert await again.usage(viewers[2], shown, START_MS) == [1, 1, 1]


async def test_a_checkpoint_of_another_format_is_refused() -> None:
    with pytest.raises(CheckpointUnreadable, match="format"):
        await MemoryCounters(1).load(parts([b"\x01\x90"]), START_MS)


async def test_a_damaged_part_of_a_checkpoint_is_refused() -> None:
    counters = MemoryCounters(1)
    assert await reserve_one(counters, A, 1)
    (part,) = counters.dump()
    with pytest.raises(CheckpointUnreadable, match="damaged"):
        await MemoryCounters(2).load(parts([part[:-1]]), START_MS)


async def test_the_event_log_overrules_a_reservation_but_not_a_decision() -> None:
    counters = MemoryCounters(1)
    ad = capped(2)
    for number in (1, 2):
        assert await reserve_one(counters, ad, number)
    until_ms = START_MS + TTL_MS
    counters.restore(VIEWER, ticket_id(1), False, START_MS, until_ms, ad.keys)
    counters.restore(VIEWER, ticket_id(2), True, START_MS, until_ms, ad.keys)
    counters.restore(VIEWER, ticket_id(2), False, START_MS, until_ms, ad.keys)
    assert not await counters.confirm(ad.ticket(ticket_id(1)), START_MS, START_MS)
    assert await counters.confirm(ad.ticket(ticket_id(2)), START_MS, START_MS)
    assert await counters.usage(VIEWER, [(campaign_key(1), DAY_MS)], START_MS) == [1]


async def test_of_two_events_of_a_ticket_in_the_log_the_one_that_counts_decides() -> None:
    """A view that was judged late may be over a cap where the impression that came after it is not."""
    counters = MemoryCounters(1)
    ad = capped(2)
    for at_ms, counted in ((START_MS, False), (START_MS + 1, True), (START_MS + 2, True)):
        counters.restore(VIEWER, ticket_id(1), counted, at_ms, START_MS + TTL_MS, ad.keys)
    (entry,) = (await counters.held(VIEWER)).entries
    assert (entry.state, entry.at_ms) == ("confirmed", START_MS + 1)


async def test_what_is_spooled_and_came_again_stays_in_doubt_whatever_else_came_of_the_ticket() -> None:
    """Its impression in the spool, the same again in the log, and its view."""
    counters, until_ms = MemoryCounters(2), START_MS + TTL_MS
    for at_ms, settled in ((0, False), (30_000, True), (55_000, True)):
        counters.restore(VIEWER, ticket_id(1), True, START_MS + at_ms, until_ms, A.keys, settled)
    (entry,) = (await counters.held(VIEWER)).entries
    assert (entry.state, entry.at_ms) == ("doubted", until_ms)


async def test_what_has_lapsed_is_forgotten_by_the_next_decision() -> None:
    counters = MemoryCounters(1)
    for number in range(OPEN_MAX):
        assert await reserve_one(counters, A, number, ttl_ms=60_000)
    assert await reserve_one(counters, A, OPEN_MAX, START_MS + 60_000 + GRACE_MS + 1)
    assert len(b"".join(counters.dump())) < 1_000


async def test_sweeping_forgets_what_no_window_can_contain() -> None:
    counters = MemoryCounters(1)
    assert await reserve_one(counters, A, 1)
    assert await reserve_one(counters, A, 2)
    await counters.confirm(A.ticket(ticket_id(1)), START_MS, START_MS)
    await counters.reserve(b"w" * 16, reservation([A], [ticket_id(3)], request="r"), START_MS)
    await counters.hide(B.ticket(ticket_id(4), viewer=b"x" * 16), START_MS)
    counters.sweep(START_MS + TTL_MS + GRACE_MS)
    assert len(counters) == 2
    counters.sweep(START_MS + TTL_MS + GRACE_MS + 1)
    assert len(counters) == 1
    counters.sweep(START_MS + 200 * DAY_MS - 1)
    assert len(counters) == 1
    hides = [(hide_key(2), 200 * DAY_MS)]
    assert await counters.usage(b"x" * 16, hides, START_MS + 200 * DAY_MS - 1) == [1]
    counters.sweep(START_MS + 200 * DAY_MS)
    assert len(counters) == 0
    assert list(counters.dump()) == []


async def test_an_erasure_between_two_sweeps_forgets_the_keys_of_no_other_viewer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("adserve.limits.counters.SWEPT_AT_ONCE", 1)
    counters, viewers = MemoryCounters(1), [b"v%d" % number + bytes(14) for number in range(4)]
    for number, viewer in enumerate(viewers):
        ad = Shown(number, number, number)
        await counters.reserve(viewer, reservation([ad], [ticket_id(number)]), START_MS)
    counters.sweep(START_MS)
    await counters.erase(viewers[0])
    for _ in range(10):
        counters.sweep(START_MS)
    for number, viewer in enumerate(viewers[1:], 1):
        assert await counters.usage(viewer, [(campaign_key(number), DAY_MS)], START_MS) == [1]


async def test_the_keys_of_ads_that_no_entry_has_any_more_are_forgotten() -> None:
    counters = MemoryCounters(1)
    for number in range(50):
        ad = Shown(number, number, number)
        assert await reserve_one(counters, ad, number, ttl_ms=60_000)
        assert await counters.confirm(ad.ticket(ticket_id(number)), START_MS, START_MS)
    kept = Shown(99, 99, 99, caps=(campaign_cap(99, 1, 180 * 86_400),))
    later_ms = START_MS + 100 * DAY_MS
    assert await reserve_one(counters, kept, 99, later_ms)
    assert await counters.confirm(kept.ticket(ticket_id(99), at_ms=later_ms), later_ms, later_ms)
    over_ms = START_MS + 200 * DAY_MS
    for _ in range(3):
        counters.sweep(over_ms)
    assert list(counters._profiles.by_number.values()) == [kept.keys]
    assert not await reserve_one(counters, kept, 100, over_ms)

    again = MemoryCounters(2)
    await again.load(parts(list(counters.dump())), over_ms)
    assert not await reserve_one(again, kept, 101, over_ms)
    assert await again.usage(VIEWER, [(campaign_key(99), 180 * DAY_MS)], over_ms) == [1]
