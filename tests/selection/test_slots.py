"""The way of a slot request over real counters and leases, and what is left of it when a part of it breaks."""

import asyncio
from collections import Counter
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from market import GRANT_MICROS, NOW_MS, Broken, Market, ToldRates, fund, make_ad, make_ask, per_click

from adserve.catalogue.snapshot import SNAPSHOT_MAX_AGE_MS
from adserve.domain.ads import Cap
from adserve.domain.slots import Context, NoFill
from adserve.domain.time import DAY_MS
from adserve.limits.counters import CountersAway
from adserve.limits.rules import GRACE_MS
from adserve.selection.decision import Decision, RequestReused
from adserve.selection.slots import MORE_THAN_POSITIONS, Bounds
from adserve.settings import Surface

pytestmark = pytest.mark.virtual_time

ONCE_A_DAY = (Cap("campaign", 1, 86_400),)


def placed(decision: Decision) -> list[int]:
    return [placement.ad.id for placement in decision.placements]


def rising(count: int, **told: Any) -> list[Any]:
    """Ad 1 bids the least."""
    return [make_ad(number, bid_micros=number * 1_000_000, **told) for number in range(1, count + 1)]


async def test_the_best_ads_stand_at_the_first_positions() -> None:
    market = Market(rising(5))
    decision = await market.answer()
    assert placed(decision) == [5, 4, 3]
    assert [placement.position for placement in decision.placements] == [3, 7, 11]
    assert [placement.ticket.price_micros for placement in decision.placements] == [4_000, 3_000, 2_000]
    assert [placement.token for placement in decision.placements] == [
        f"sealed {placement.ticket.ticket}" for placement in decision.placements
    ]
    assert decision.no_fill is None


async def test_only_the_prices_of_what_was_placed_stay_held() -> None:
    market = Market(rising(5))
    await market.answer()
    held = {campaign: GRANT_MICROS - left for campaign, left in market.remaining_micros().items()}
    assert held == {1: 0, 2: 0, 3: 2_000, 4: 3_000, 5: 4_000}


async def test_released_placements_give_back_caps_and_budgets() -> None:
    market = Market(rising(2, caps=ONCE_A_DAY))
    first = await market.answer()
    assert (await market.answer()).no_fill is NoFill.FREQUENCY_CAPPED
    tickets = [placement.ticket for placement in first.placements]
    assert await market.slots.release(tickets) == 2
    assert await market.slots.release(tickets) == 0
    assert set(market.remaining_micros().values()) == {GRANT_MICROS}
    assert placed(await market.answer()) == [2, 1]


async def test_a_click_holds_its_expected_price() -> None:
    market = Market([per_click(1, 100_000), make_ad(2, bid_micros=500_000)], rates=ToldRates({1: 0.01}))
    decision = await market.answer(max_ads=1)
    assert decision.placements[0].ticket.price_micros == 50_000
    assert market.remaining_micros()[1] == GRANT_MICROS - 1_000, "50,000 x 0.01 x the margin of 2"


NO_FILLS: dict[NoFill, Callable[[], tuple[Market, dict[str, Any]]]] = {
    NoFill.ROLLOUT_PAUSED: lambda: (Market(rising(2), paused=True), {}),
    NoFill.FEED_TOO_SHORT: lambda: (Market(rising(2)), {"feed_length": 2}),
    NoFill.NO_ELIGIBLE_AD: lambda: (Market([]), {}),
    NoFill.OPTED_OUT: lambda: (Market(rising(2)), {"ads_allowed": False}),
    NoFill.BELOW_FLOOR: lambda: (Market(rising(2)), {"floor_micros": 9_000_000}),
    NoFill.BUDGET_SPENT: lambda: (Market(rising(2), fund_micros=999), {}),
    NoFill.DEGRADED: lambda: (Market(rising(2), fresh_at_ms=NOW_MS - DAY_MS), {}),
}


@pytest.mark.parametrize("reason", NO_FILLS)
@pytest.mark.parametrize("explained", [False, True])
async def test_why_nothing_is_placed(reason: NoFill, explained: bool) -> None:
    market, told = NO_FILLS[reason]()
    decision = await market.answer(**told, explain=explained)
    assert (decision.no_fill, decision.placements) == (reason, ())
    assert (decision.explanation is not None) is explained


async def test_without_the_only_counters_nothing_is_placed() -> None:
    market = Market(rising(2))
    market.may_serve = False
    assert (await market.answer()).no_fill is NoFill.DEGRADED


async def test_a_campaign_without_budget_makes_room_for_the_next() -> None:
    market = Market(rising(3), fund_micros=0)
    fund(market.book, market.ads[:2])
    assert placed(await market.answer()) == [2, 1]


async def test_caps_and_hides_hold_without_consent() -> None:
    market = Market(rising(3, caps=ONCE_A_DAY))
    seen, hidden = (await market.answer(max_ads=2, personalised=False)).placements
    await market.counters.hide(hidden.ticket, NOW_MS)
    await market.slots.release([hidden.ticket])
    assert (seen.ad.id, hidden.ad.id) == (3, 2)
    assert placed(await market.answer(personalised=False)) == [1]


async def test_a_request_that_comes_again_is_answered_alike() -> None:
    market = Market(rising(5))
    first = await market.answer(request="r-1", digest=b"body", context=Context(country="ID"))
    market.now_ms += 1_000
    market.view = Market(rising(1)).view
    again = await market.answer(request="r-1", digest=b"body", context=Context(country="ID"))
    assert again == first
    assert sum(GRANT_MICROS - left for left in market.remaining_micros().values()) == 9_000, "held once"


async def test_the_switch_and_an_old_snapshot_beat_the_promise_to_a_retry() -> None:
    market = Market(rising(5))
    assert (await market.answer(request="r-1")).placements
    fresh = market.view
    market.view = fresh._replace(paused=True)
    assert (await market.answer(request="r-1")).no_fill is NoFill.ROLLOUT_PAUSED
    market.view = fresh._replace(fresh_at_ms=NOW_MS - SNAPSHOT_MAX_AGE_MS - 1)
    assert (await market.answer(request="r-1")).no_fill is NoFill.DEGRADED


async def test_a_request_with_another_body_is_refused() -> None:
    market = Market(rising(5))
    await market.answer(request="r-1", digest=b"body")
    with pytest.raises(RequestReused):
        await market.answer(request="r-1", digest=b"another")
    assert (await market.answer(viewer="u-2", request="r-1", digest=b"another")).placements


async def test_a_request_is_new_again_when_its_tickets_have_expired() -> None:
    market = Market(rising(5))
    first = await market.answer(request="r-1", ticket_ttl_s=60)
    market.now_ms += 60_001
    assert (await market.answer(request="r-1", digest=b"another")).decision != first.decision


async def test_minimum_time_lies_between_requests_not_within_one() -> None:
    market = Market(rising(5), surface=Surface(min_time_s=300))
    assert placed(await market.answer()) == [5, 4, 3]
    assert (await market.answer()).no_fill is NoFill.FREQUENCY_CAPPED


async def test_ads_that_share_a_label_stay_apart() -> None:
    ads = [*rising(3, separation=("drinks",)), make_ad(4, bid_micros=500_000)]
    market = Market(ads, surface=Surface(separation_s=600))
    assert placed(await market.answer()) == [3, 4]


def raising(error: BaseException) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


async def late(*given: Any) -> Any:
    """No answer comes, and whoever waits for one gives up in time."""
    await asyncio.sleep(given[-1] / 1_000)
    raise TimeoutError


async def hang(*_given: Any) -> Any:
    await asyncio.Event().wait()


async def late_after(call: Callable[..., Any], *given: Any) -> Any:
    """The far side has done it, and we never hear of it."""
    await call(*given)
    await late(*given)


def recall_slowly(market: Market) -> None:
    """Most of the time is gone when it is heard what there was, and then nothing is."""
    whole = market.counters

    async def recall(*given: Any) -> Any:
        await asyncio.sleep(0.015)
        market.now_ms += 15
        return await whole.recall(*given)

    market.counters = Broken(whole, recall=recall, reserve=late)


def break_counters(name: str, fault: Callable[..., Any]) -> Callable[[Market], None]:
    return lambda market: setattr(market, "counters", Broken(market.counters, **{name: fault}))


BOOM = raising(ConnectionError("the counters are away"))
FAULTS: dict[str, tuple[Callable[[Market], None], NoFill]] = {
    "recall raises": (break_counters("recall", BOOM), NoFill.DEGRADED),
    "reserve raises": (break_counters("reserve", BOOM), NoFill.DEGRADED),
    "usage raises": (break_counters("usage", BOOM), NoFill.DEGRADED),
    "recall is late": (break_counters("recall", late), NoFill.DEADLINE),
    "reserve is late": (break_counters("reserve", late), NoFill.DEADLINE),
    "recall is slow, then reserve is late": (recall_slowly, NoFill.DEADLINE),
    "seal raises": (
        lambda market: setattr(market, "sealer", Broken(None, seal=raising(LookupError("no key")))),
        NoFill.DEGRADED,
    ),
    "hold raises": (
        lambda market: setattr(market, "book", Broken(market.book, hold=raising(KeyError(1)))),
        NoFill.DEGRADED,
    ),
    "rates raise": (
        lambda market: setattr(
            market,
            "view",
            market.view._replace(rates=Broken(market.view.rates, click=raising(MemoryError()))),
        ),
        NoFill.DEGRADED,
    ),
    "no view": (lambda market: setattr(market, "view", None), NoFill.DEGRADED),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_is_a_decision_without_ads_that_holds_nothing(fault: str) -> None:
    breaks, reason = FAULTS[fault]
    market = Market(rising(5))
    breaks(market)
    now_s = asyncio.get_running_loop().time
    began_s = now_s()
    decision = await market.answer(explain=True, deadline_ms=20)
    assert now_s() - began_s < 0.021
    assert (decision.no_fill, decision.placements) == (reason, ())
    assert market.remaining_micros() == dict.fromkeys(range(1, 6), GRANT_MICROS)


@pytest.mark.parametrize("fault", [hang, raising(CountersAway("away"))])
async def test_an_explanation_without_the_figures_of_caps_takes_back_nothing(
    fault: Callable[..., Any],
) -> None:
    market = Market(rising(2, caps=ONCE_A_DAY))
    market.counters = Broken(market.counters, usage=fault)
    decision = await market.answer(explain=True, deadline_ms=20)
    assert placed(decision) == [2, 1]


async def test_what_is_placed_without_counters_has_tickets_that_no_lost_call_has_reserved() -> None:
    market = Market([make_ad(1), make_ad(2, bid_micros=9_000_000, caps=ONCE_A_DAY)])
    whole, reserved = market.counters, []

    async def reserve(*given: Any) -> Any:
        grant = await whole.reserve(*given)
        reserved.extend(given[1].tickets[: len(grant.reserved)])
        raise CountersAway("the answer was lost")

    market.counters = Broken(whole, reserve=reserve)
    market.draw = count(1).__next__
    decision = await market.answer()
    assert (placed(decision), len(reserved)) == ([1], 2)
    assert decision.placements[0].ticket.ticket not in reserved


async def test_a_grant_that_never_arrives_counts_until_it_lapses() -> None:
    market = Market(rising(2, caps=ONCE_A_DAY))
    whole = market.counters
    market.counters = Broken(whole, reserve=lambda *given: late_after(whole.reserve, *given))
    assert (await market.answer(deadline_ms=5, ticket_ttl_s=60)).no_fill is NoFill.DEADLINE
    market.counters = whole
    assert (await market.answer()).no_fill is NoFill.FREQUENCY_CAPPED
    market.now_ms += 60_000 + GRACE_MS + 1
    assert placed(await market.answer()) == [2, 1]


async def test_a_caller_who_goes_away_leaves_nothing_held() -> None:
    market = Market(rising(5))
    market.counters = Broken(market.counters, reserve=hang)
    answer = asyncio.create_task(market.slots.answer(make_ask(deadline_ms=10_000)))
    await asyncio.sleep(0.01)
    assert min(market.remaining_micros().values()) < GRANT_MICROS
    answer.cancel()
    with pytest.raises(asyncio.CancelledError):
        await answer
    assert set(market.remaining_micros().values()) == {GRANT_MICROS}


async def test_a_book_that_gets_nothing_back_is_noticed() -> None:
    """The control of the two tests above: a leak would show in what remains."""
    market = Market(rising(5))
    market.book = Broken(market.book, give_back=lambda _hold: None)
    market.counters = Broken(market.counters, reserve=BOOM)
    await market.answer()
    assert min(market.remaining_micros().values()) < GRANT_MICROS


MOVES = st.lists(
    st.tuples(
        st.sampled_from(["answer", "answer", "release", "confirm", "wait", "break"]), st.integers(0, 5)
    ),
    max_size=30,
)


@given(moves=MOVES, budget=st.sampled_from([0, 3_000, 20_000, 1_000_000]))
@settings(derandomize=True, max_examples=60, deadline=None)
def test_the_book_always_holds_what_is_out(moves: list[tuple[str, int]], budget: int) -> None:
    """What campaigns have left is their grants less the prices of the tickets that may still be charged."""

    async def live() -> None:
        market = Market(rising(6, caps=(Cap("campaign", 3, 3_600),)), fund_micros=budget)
        whole = market.counters
        out: list[Any] = []
        for move, number in moves:
            market.counters = whole
            if move == "break":
                market.counters = Broken(whole, reserve=BOOM)
                await market.answer(viewer=f"u-{number}")
            elif move == "answer":
                decision = await market.answer(viewer=f"u-{number}", ticket_ttl_s=600)
                out += [placement.ticket for placement in decision.placements]
            elif move == "release" and out:
                await market.slots.release([out.pop(number % len(out))])
            elif move == "confirm" and out:
                ticket = out.pop(number % len(out))
                assert await whole.confirm(ticket, market.now_ms, market.now_ms)
                market.book.captured(ticket.ticket, ticket.lease, 0)
            elif move == "wait":
                market.book.expire(market.now_ms)  # as it does each second
                market.now_ms += number * 150_000
                market.book.expire(market.now_ms)
                out = [ticket for ticket in out if ticket.expires_at_ms + GRACE_MS > market.now_ms]
            kept = Counter[int]()
            for ticket in out:
                kept[ticket.campaign] += ticket.price_micros
            assert market.remaining_micros() == {
                number: budget - kept[number] if budget else 0 for number in range(1, 7)
            }

    asyncio.run(live())


def held_campaigns(market: Market) -> list[int]:
    """Grows by each whose budget is asked for."""
    held: list[int] = []
    whole = market.book

    def hold(campaign: int, micros: int, now_ms: int) -> Any:
        held.append(campaign)
        return whole.hold(campaign, micros, now_ms)

    market.book = Broken(whole, hold=hold)
    return held


@pytest.mark.parametrize("told", [{"max_ads": 2}, {"max_ads": 50, "feed_length": 10}])
async def test_few_more_candidates_hold_budget_than_there_are_positions(told: dict[str, int]) -> None:
    market = Market(rising(40))
    held = held_campaigns(market)
    assert placed(await market.answer(**told)) == [40, 39]
    assert held == [40, 39, 38, 37, 36]


async def test_few_candidates_or_many_place_the_same_for_the_same_price(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One viewer meets cap after cap, until the first few candidates are not enough, and then none are."""
    ads = [
        make_ad(
            number,
            advertiser=number % 3,
            bid_micros=number * 1_000_000,
            caps=(Cap("ad", number % 3 + 1, 3_600),),
        )
        for number in range(1, 31)
    ]
    seen = []
    for few in (MORE_THAN_POSITIONS, 100):
        monkeypatch.setattr("adserve.selection.slots.MORE_THAN_POSITIONS", few)
        market = Market(ads)
        seen.append([await market.answer() for _ in range(25)])
        assert set(market.remaining_micros().values()) != {GRANT_MICROS}
    assert seen[0] == seen[1]
    assert len(placed(seen[0][0])) == 3
    assert seen[0][-1].no_fill is NoFill.FREQUENCY_CAPPED


async def test_at_most_so_many_candidates_hold_budget() -> None:
    market = Market(rising(40))
    market.bounds = Bounds(candidates_max=4)
    held = held_campaigns(market)
    await market.answer()
    assert held == [40, 39, 38, 37]
