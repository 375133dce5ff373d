"""The contract of the counters, case by case, which every kind of them passes; test_caps_are_exact.py drives them at random."""

from typing import Any

import pytest
from counting import (
    START_MS,
    TTL_MS,
    VIEWER,
    A,
    B,
    C,
    Shown,
    advertiser_cap,
    campaign_cap,
    cap_on_all,
    capped,
    label_rule,
    reservation,
    reserve_one,
    ticket_id,
)
from msgspec import structs

from adserve.domain.time import DAY_MS, HOUR_MS
from adserve.limits.counters import OPEN_MAX
from adserve.limits.reservations import Grant, PastDiffers
from adserve.limits.rules import ALL, GRACE_MS, PACE, Rule, ad_key, campaign_key


async def test_the_best_ads_are_reserved_in_order(counters: Any) -> None:
    grant = await counters.reserve(VIEWER, reservation([A, B, C], [ticket_id(1), ticket_id(2)]), START_MS)
    assert grant == Grant(reserved=(0, 1), runner_up=2, capped=())


async def test_the_runner_up_is_of_another_advertiser_and_the_same_tier(counters: Any) -> None:
    guaranteed = B._replace(ad=9, campaign=9, advertiser=9, tier=0)
    grant = await counters.reserve(VIEWER, reservation([A, C, guaranteed, B], [ticket_id(1)]), START_MS)
    assert grant == Grant(reserved=(0,), runner_up=3, capped=())
    alone = await counters.reserve(VIEWER, reservation([A, C], [ticket_id(2)]), START_MS)
    assert alone.runner_up is None


async def test_the_runner_up_is_not_reserved(counters: Any) -> None:
    limited = B._replace(caps=(campaign_cap(2, 1, 60),))
    for number in (1, 2):
        grant = await counters.reserve(VIEWER, reservation([A, limited], [ticket_id(number)]), START_MS)
        assert grant.runner_up == 1


async def test_a_whole_reservation_is_made_with_a_runner_up_or_not_at_all(counters: Any) -> None:
    two = [ticket_id(1), ticket_id(2)]
    for ads in ([A], [A, B], [A, C, C]):
        grant = await counters.reserve(VIEWER, structs.replace(reservation(ads, two), whole=True), START_MS)
        assert grant == Grant(reserved=(), runner_up=None, capped=())
    assert await counters.usage(VIEWER, [(ALL, 60_000)], START_MS) == [0]
    grant = await counters.reserve(VIEWER, structs.replace(reservation([A, B, C], two), whole=True), START_MS)
    assert grant == Grant(reserved=(0, 1), runner_up=2, capped=())


async def test_a_capped_ad_is_skipped_and_named_with_its_rule(counters: Any) -> None:
    ad = capped(1)
    assert await reserve_one(counters, ad, 1)
    grant = await counters.reserve(VIEWER, reservation([ad, B], [ticket_id(2)]), START_MS)
    assert grant == Grant(reserved=(1,), runner_up=None, capped=((0, ad.caps[0]),))


async def test_a_capped_ad_sets_no_price(counters: Any) -> None:
    limited = B._replace(caps=(campaign_cap(2, 1, 3_600),))
    assert await reserve_one(counters, limited, 1)
    grant = await counters.reserve(VIEWER, reservation([A, limited], [ticket_id(2)]), START_MS)
    assert grant.runner_up is None
    assert grant.capped == ((1, limited.caps[0]),)


async def test_a_cap_holds_within_one_decision(counters: Any) -> None:
    ads = [Shown(number, 7, 7, caps=(campaign_cap(7, 2, 60),)) for number in range(5)]
    tickets = [ticket_id(number) for number in range(5)]
    grant = await counters.reserve(VIEWER, reservation(ads, tickets), START_MS)
    assert grant.reserved == (0, 1)


async def test_viewers_are_counted_apart(counters: Any) -> None:
    ad = capped(1)
    assert await reserve_one(counters, ad, 1)
    grant = await counters.reserve(b"w" * 16, reservation([ad], [ticket_id(2)]), START_MS)
    assert grant.reserved == (0,)


@pytest.mark.parametrize("window_s", [60, 3_600, 180 * 86_400])
async def test_a_confirmed_impression_counts_for_exactly_the_window(counters: Any, window_s: int) -> None:
    ad = capped(1, window_s)
    assert await reserve_one(counters, ad, 1)
    assert await counters.confirm(ad.ticket(ticket_id(1)), START_MS, START_MS)
    end_ms = START_MS + window_s * 1_000
    assert not await reserve_one(counters, ad, 2, end_ms - 1)
    assert await reserve_one(counters, ad, 3, end_ms)


async def test_a_reservation_counts_in_every_window_until_its_grace_is_over(counters: Any) -> None:
    ad = capped(1, window_s=60)
    assert await reserve_one(counters, ad, 1)
    end_ms = START_MS + TTL_MS + GRACE_MS
    assert not await reserve_one(counters, ad, 2, end_ms)
    assert await reserve_one(counters, ad, 3, end_ms + 1)


async def test_a_known_reservation_moves_to_the_time_of_its_impression(counters: Any) -> None:
    ad = capped(1, window_s=60)
    assert await reserve_one(counters, ad, 1)
    seen_ms = START_MS + HOUR_MS // 2
    assert await counters.confirm(ad.ticket(ticket_id(1)), seen_ms, seen_ms)
    assert not await reserve_one(counters, ad, 2, seen_ms + 59_999)
    assert await reserve_one(counters, ad, 3, seen_ms + 60_000)


async def test_a_released_place_is_free_at_once(counters: Any) -> None:
    ad = capped(1)
    ticket = ad.ticket(ticket_id(1))
    assert await reserve_one(counters, ad, 1)
    assert await counters.release(ticket, START_MS)
    assert not await counters.release(ticket, START_MS)
    assert await reserve_one(counters, ad, 2)


async def test_what_was_shown_or_has_lapsed_cannot_be_released(counters: Any) -> None:
    ad = capped(2)
    assert await reserve_one(counters, ad, 1)
    assert await reserve_one(counters, ad, 2)
    assert await counters.confirm(ad.ticket(ticket_id(1)), START_MS, START_MS)
    assert not await counters.release(ad.ticket(ticket_id(1)), START_MS)
    assert not await counters.release(ad.ticket(ticket_id(2)), START_MS + TTL_MS + GRACE_MS + 1)
    assert not await counters.release(ad.ticket(ticket_id(3)), START_MS)


async def test_released_and_shown_all_the_same_counts_only_if_there_is_room(counters: Any) -> None:
    ad = capped(1)
    assert await reserve_one(counters, ad, 1)
    await counters.release(ad.ticket(ticket_id(1)), START_MS)
    assert await reserve_one(counters, ad, 2)
    assert not await counters.confirm(ad.ticket(ticket_id(1)), START_MS + 1, START_MS + 1)
    assert await counters.confirm(ad.ticket(ticket_id(2)), START_MS + 2, START_MS + 2)


async def test_the_first_confirmation_decides_for_all_later_events_of_the_ticket(counters: Any) -> None:
    ad = capped(1, window_s=60)
    assert await reserve_one(counters, ad, 1)
    assert await counters.confirm(ad.ticket(ticket_id(1)), START_MS, START_MS)
    unknown = ad.ticket(ticket_id(2))
    assert not await counters.confirm(unknown, START_MS + 1, START_MS + 1)
    assert not await counters.confirm(unknown, START_MS + HOUR_MS, START_MS + HOUR_MS), (
        "a view, when there is room"
    )
    assert await counters.confirm(ad.ticket(ticket_id(1)), START_MS + 5, START_MS + 5), "a view"
    assert not await counters.confirm(unknown, START_MS + HOUR_MS, START_MS + 30 * DAY_MS), (
        "after a long outage"
    )


async def test_a_repeated_confirmation_does_not_move_the_impression(counters: Any) -> None:
    ad = capped(1, window_s=60)
    assert await reserve_one(counters, ad, 1)
    assert await counters.confirm(ad.ticket(ticket_id(1)), START_MS, START_MS)
    assert await counters.confirm(ad.ticket(ticket_id(1)), START_MS + 59_000, START_MS + 59_000)
    assert await reserve_one(counters, ad, 2, START_MS + 60_000)


@pytest.mark.parametrize(("at_s", "fits"), [(0, True), (1, False), (60, False), (119, False), (120, True)])
async def test_an_unknown_ticket_out_of_time_order_must_fit_every_window(
    counters: Any, at_s: int, fits: bool
) -> None:
    """With an impression at 60 s and one a minute: nothing less than a minute before or after it fits."""
    ad = capped(1, window_s=60)
    now_ms = START_MS + HOUR_MS
    assert await counters.confirm(ad.ticket(ticket_id(1)), START_MS + 60_000, now_ms)
    assert await counters.confirm(ad.ticket(ticket_id(2)), START_MS + at_s * 1_000, now_ms) is fits


async def test_an_unknown_ticket_leaves_room_for_what_is_reserved(counters: Any) -> None:
    ad = capped(2)
    assert await reserve_one(counters, ad, 1)
    assert await counters.confirm(ad.ticket(ticket_id(2)), START_MS, START_MS)
    assert not await counters.confirm(ad.ticket(ticket_id(3)), START_MS, START_MS)
    assert await counters.confirm(ad.ticket(ticket_id(1)), START_MS, START_MS)


async def test_an_earlier_event_of_a_ticket_that_counts_must_fit_where_it_is_stored(counters: Any) -> None:
    """It waited while the counters were away, and the same ticket was confirmed meanwhile, when there was room."""
    ad = capped(1, window_s=60)
    shown, waiting = ad.ticket(ticket_id(1)), ad.ticket(ticket_id(2))
    now_ms = START_MS + 75_000
    assert await counters.confirm(shown, START_MS, START_MS)
    assert await counters.confirm(waiting, START_MS + 70_000, START_MS + 70_000)
    assert not await counters.confirm(waiting, START_MS + 59_999, now_ms)
    assert await counters.confirm(waiting, START_MS + 70_000, now_ms), "it counts where it was all the same"
    assert await counters.confirm(waiting, START_MS + 60_000, now_ms)
    assert not await reserve_one(counters, ad, 3, START_MS + 119_999)
    assert not await counters.confirm(ad.ticket(ticket_id(4)), START_MS - 59_999, now_ms), "the one shown"
    hour_ms = START_MS + HOUR_MS
    assert not await counters.confirm(ad.ticket(ticket_id(5)), START_MS + 119_999, hour_ms)
    assert await counters.confirm(ad.ticket(ticket_id(6)), START_MS + 120_000, hour_ms)


async def test_what_is_doubted_counts_at_every_moment_that_it_may_be_stored_with(counters: Any) -> None:
    ad = capped(1, window_s=60)
    assert await counters.confirm(ad.ticket(ticket_id(1)), START_MS, START_MS)
    await counters.doubt(ad.ticket(ticket_id(1)))
    end_ms = START_MS + TTL_MS
    over_ms = end_ms + GRACE_MS + 1
    for number, at_ms in enumerate((START_MS, START_MS + 600_000, end_ms, end_ms + 59_999), start=2):
        assert not await counters.confirm(ad.ticket(ticket_id(number)), at_ms, over_ms)
    assert await reserve_one(counters, ad, 9, over_ms)


async def test_what_was_doubted_and_came_again_counts_at_its_last_moment(counters: Any) -> None:
    ad = capped(1, window_s=60)
    ticket, seen_ms = ad.ticket(ticket_id(1)), START_MS + 600_000
    assert await counters.confirm(ticket, START_MS, START_MS)
    await counters.doubt(ticket)
    assert await counters.confirm(ticket, seen_ms, seen_ms)
    assert not await reserve_one(counters, ad, 2, seen_ms + 60_000), "it is looked at as open for a grace"
    assert await reserve_one(counters, ad, 3, seen_ms + 60_001)
    await counters.doubt(ticket)
    assert not await reserve_one(counters, ad, 4, START_MS + TTL_MS)


async def test_a_doubt_that_comes_late_does_not_take_a_place_that_was_given_away(counters: Any) -> None:
    """A process that could not reach the counters for a minute tells what it doubts."""
    ad = capped(1, window_s=60)
    late, other = ad.ticket(ticket_id(1)), ad.ticket(ticket_id(2))
    assert await counters.confirm(late, START_MS, START_MS)
    assert await reserve_one(counters, ad, 2, START_MS + 60_000)
    assert await counters.confirm(other, START_MS + 60_000, START_MS + 60_000)
    await counters.doubt(late)
    assert not await counters.confirm(late, START_MS + 61_000, START_MS + 61_000)


async def test_every_scope_has_a_cap_of_its_own(counters: Any) -> None:
    first = Shown(
        1, 1, 1, caps=(Rule(ad_key(1), 1, DAY_MS), advertiser_cap(1, 2, 86_400), cap_on_all(3, 86_400))
    )
    second = Shown(2, 2, 1, caps=(advertiser_cap(1, 2, 86_400), cap_on_all(3, 86_400)))
    third = Shown(3, 3, 3, caps=(cap_on_all(3, 86_400),))
    grant = await counters.reserve(VIEWER, reservation([first], [ticket_id(1)]), START_MS)
    assert grant.reserved == (0,)
    grant = await counters.reserve(VIEWER, reservation([first, second], [ticket_id(2)]), START_MS)
    assert grant == Grant((1,), None, ((0, first.caps[0]),))
    grant = await counters.reserve(VIEWER, reservation([second, third], [ticket_id(3)]), START_MS)
    assert grant == Grant((1,), None, ((0, second.caps[0]),))
    grant = await counters.reserve(VIEWER, reservation([third], [ticket_id(4)]), START_MS)
    assert grant == Grant((), None, ((0, third.caps[0]),))


async def test_labels_keep_ads_apart_within_and_between_decisions(counters: Any) -> None:
    coffee = A._replace(labels=("drinks",), others=(label_rule("drinks", 600),))
    tea = B._replace(labels=("hot", "drinks"), others=(label_rule("hot", 600), label_rule("drinks", 600)))
    grant = await counters.reserve(
        VIEWER, reservation([coffee, tea, C], [ticket_id(1), ticket_id(2)]), START_MS
    )
    assert grant.reserved == (0, 2)
    assert grant.capped == ((1, label_rule("drinks", 600)),)
    assert await counters.confirm(coffee.ticket(ticket_id(1)), START_MS, START_MS)
    assert not await reserve_one(counters, tea, 3, START_MS + 599_999)
    assert await reserve_one(counters, tea, 4, START_MS + 600_000)


async def test_minimum_time_ignores_entries_of_the_same_decision(counters: Any) -> None:
    pace = Rule(PACE, 1, 300_000)
    ads = [ad._replace(others=(pace,)) for ad in (A, B)]
    grant = await counters.reserve(VIEWER, reservation(ads, [ticket_id(1), ticket_id(2)]), START_MS)
    assert grant.reserved == (0, 1)
    grant = await counters.reserve(VIEWER, reservation(ads, [ticket_id(3)]), START_MS)
    assert grant == Grant((), None, ((0, pace), (1, pace)))
    for number, ad in enumerate(ads, start=1):
        assert await counters.confirm(ad.ticket(ticket_id(number)), START_MS, START_MS)
    assert not await reserve_one(counters, ads[0], 4, START_MS + 299_999)
    assert await reserve_one(counters, ads[0], 5, START_MS + 300_000)


async def test_a_hidden_advertiser_stays_away_for_200_days(counters: Any) -> None:
    await counters.hide(A.ticket(ticket_id(1)), START_MS)
    grant = await counters.reserve(VIEWER, reservation([A, C, B], [ticket_id(2)]), START_MS + 1)
    assert grant.reserved == (2,)
    assert not await reserve_one(counters, A, 3, START_MS + 200 * DAY_MS - 1)
    assert await reserve_one(counters, A, 4, START_MS + 200 * DAY_MS)


async def test_the_newest_hide_counts(counters: Any) -> None:
    for at_ms in (START_MS, START_MS + DAY_MS, START_MS + 1):
        await counters.hide(A.ticket(ticket_id(1)), at_ms)
    assert not await reserve_one(counters, A, 2, START_MS + 201 * DAY_MS - 1)
    assert await reserve_one(counters, A, 3, START_MS + 201 * DAY_MS)


async def test_a_request_that_comes_again_recalls_its_grant(counters: Any) -> None:
    ask = reservation([A, B], [ticket_id(1)], request="r-1", digest=b"body", memo="kept")
    assert (await counters.recall(VIEWER, "r-1", START_MS)).earlier is None
    grant = await counters.reserve(VIEWER, ask, START_MS)
    earlier = (await counters.recall(VIEWER, "r-1", START_MS + TTL_MS)).earlier
    assert (earlier.digest, earlier.grant, earlier.memo) == (b"body", grant, "kept")
    assert (await counters.recall(VIEWER, "r-1", START_MS + TTL_MS + 1)).earlier is None, (
        "its tickets have expired"
    )
    assert (await counters.recall(b"w" * 16, "r-1", START_MS)).earlier is None, "another viewer's"
    assert (await counters.recall(VIEWER, None, START_MS)).earlier is None


async def test_a_request_that_was_answered_meanwhile_reserves_nothing(counters: Any) -> None:
    asks = [
        reservation([A, B], [ticket_id(number)], request="r-1", digest=b"body", memo=f"memo {number}")
        for number in (1, 2)
    ]
    for request in ("r-1", "r-2"):
        assert (await counters.recall(VIEWER, request, START_MS)).earlier is None
    grant = await counters.reserve(VIEWER, asks[0], START_MS)
    with pytest.raises(PastDiffers) as differs:
        await counters.reserve(VIEWER, asks[1], START_MS)
    earlier = differs.value.past.earlier
    assert earlier is not None
    assert (earlier.digest, earlier.grant, earlier.memo) == (b"body", grant, "memo 1")
    assert await counters.usage(VIEWER, [(ALL, DAY_MS)], START_MS) == [1]


async def test_the_past_holds_confirmed_impressions_of_the_last_week(counters: Any) -> None:
    for number, ad in ((1, A), (2, A), (3, B), (4, B)):
        assert await reserve_one(counters, ad, number)
    for number, ad in ((1, A), (2, A), (3, B)):
        await counters.confirm(ad.ticket(ticket_id(number)), START_MS + number, START_MS + number)
    exposures = (await counters.recall(VIEWER, None, START_MS + 10)).exposures
    assert exposures[campaign_key(1)] == 2
    assert exposures[campaign_key(2)] == 1
    assert exposures[ALL] == 3
    assert (await counters.recall(VIEWER, None, START_MS + 7 * DAY_MS + 1)).exposures[ALL] == 2
    assert (await counters.recall(VIEWER, None, START_MS + 8 * DAY_MS)).exposures == {}


async def test_usage_counts_reserved_and_confirmed_entries(counters: Any) -> None:
    for number in (1, 2):
        assert await reserve_one(counters, A, number)
    await counters.confirm(A.ticket(ticket_id(1)), START_MS, START_MS)
    asked = [(campaign_key(1), 60_000), (ALL, DAY_MS), (campaign_key(2), DAY_MS)]
    assert await counters.usage(VIEWER, asked, START_MS + 59_999) == [2, 2, 0]
    assert await counters.usage(VIEWER, asked, START_MS + 60_000) == [1, 2, 0]
    assert await counters.usage(b"w" * 16, asked, START_MS) == [0, 0, 0]


async def test_a_viewer_has_a_bounded_number_of_open_tickets(counters: Any) -> None:
    """Or one id that is sent for everybody would make every decision for it slower than the one before."""
    for number in range(OPEN_MAX):
        assert await reserve_one(counters, A, number, ttl_ms=60_000)
    assert not await reserve_one(counters, A, OPEN_MAX)
    grant = await counters.reserve(b"w" * 16, reservation([A], [ticket_id(OPEN_MAX)]), START_MS)
    assert grant.reserved == (0,)
    later_ms = START_MS + 60_000 + GRACE_MS + 1
    assert await reserve_one(counters, A, OPEN_MAX + 1, later_ms)
