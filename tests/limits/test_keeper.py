from typing import Any
from uuid import UUID

import asyncpg
import pytest
from leased import remaining_micros
from msgspec import structs
from world import NOW_MS, PRICE_MICROS, World, make_world

from adserve.database.pools import Pools
from adserve.domain.ads import Campaign, Tier
from adserve.domain.events import Outcome
from adserve.domain.targeting import Targeting
from adserve.domain.time import DAY_MS, HOUR_MS
from adserve.limits.keeper import LOST_AFTER_MS, ROUND_MS, SPOOLS_TOLD_MS, LeaseKeeper
from adserve.limits.leases import LeaseBook
from adserve.limits.lines import ASK_AGAIN_MS, EVENTS_PER_LEASE_MIN
from adserve.limits.rules import GRACE_MS
from adserve.store.books import reconciled
from adserve.store.errors import Away
from adserve.store.ledger import deposit

LEASE_MICROS = EVENTS_PER_LEASE_MIN * PRICE_MICROS


def make_campaign(
    number: int, advertiser: int, daily: int | None = None, zone: str = "UTC", pacing: Any = "asap"
) -> Campaign:
    return Campaign(
        id=number,
        advertiser=advertiser,
        name="c",
        starts_at_ms=0,
        ends_at_ms=None,
        time_zone=zone,
        bid_model="cpm",
        bid_micros=1_000 * PRICE_MICROS,
        currency="USD",
        billable="impression",
        budget_daily_micros=daily,
        budget_total_micros=None,
        pacing=pacing,
        tier=Tier.AUCTION,
        targeting=Targeting(),
        caps=(),
        separation=(),
    )


class Kept:
    """A replica: its book, its keeper and what may run."""

    def __init__(self, world: World, campaigns: list[Campaign], replica: int = 1) -> None:
        self.book = LeaseBook()
        self.run(campaigns)
        self.keeper = LeaseKeeper(self.book, world.ledger, lambda: self.campaigns, UUID(int=replica))

    def run(self, campaigns: list[Campaign]) -> None:
        self.campaigns: dict[int, Campaign] = {campaign.id: campaign for campaign in campaigns}

    def draw(self, campaign: int, events: int, now_ms: int, ttl_ms: int = HOUR_MS) -> int:
        """Keeps as many events' prices as there is room for."""
        drawn = 0
        for _ in range(events):
            hold = self.book.hold(campaign, PRICE_MICROS, now_ms)
            if hold is None:
                break
            drawn += 1
            self.book.keep(hold, UUID(int=now_ms << 80 | drawn), PRICE_MICROS, now_ms + ttl_ms)
        return drawn


@pytest.fixture
async def world(pools: Pools) -> World:
    return await make_world(pools)


async def leases(world: World, condition: str) -> int:
    return int(await world.fetchval(f"SELECT count(*) FROM leases WHERE {condition}"))


async def test_a_lease_is_taken_ahead_of_need_and_followed_by_one_for_the_demand(world: World) -> None:
    kept = Kept(world, [make_campaign(world.campaign, world.advertiser)])
    await kept.keeper.step(NOW_MS)
    await kept.keeper.step(NOW_MS + 1_000)
    assert remaining_micros(kept.book, world.campaign, NOW_MS) == LEASE_MICROS
    assert kept.draw(world.campaign, 99, NOW_MS + 1_000) == EVENTS_PER_LEASE_MIN
    assert kept.keeper.wake.is_set()
    await kept.keeper.step(NOW_MS + 1_000)
    remaining = remaining_micros(kept.book, world.campaign, NOW_MS + 1_000)
    assert remaining == 10 * LEASE_MICROS  # ten seconds of what one second drew
    kept.draw(world.campaign, 1, NOW_MS + 2_000)
    await kept.keeper.step(NOW_MS + 2_000)
    assert await leases(world, "frozen_at IS NOT NULL") == 1
    assert (await reconciled(world.pools.analyst)).exact


async def test_a_lease_is_at_most_a_tenth_of_the_day_and_never_below_an_event(world: World) -> None:
    small = await world.add_campaign(world.advertiser, daily=100_000)
    tiny = await world.add_campaign(world.advertiser, daily=5_000)
    kept = Kept(
        world,
        [
            make_campaign(small, world.advertiser, 100_000),
            make_campaign(tiny, world.advertiser, 5_000),
        ],
    )
    await kept.keeper.step(NOW_MS)
    assert remaining_micros(kept.book, small, NOW_MS) == 10_000
    assert remaining_micros(kept.book, tiny, NOW_MS) == PRICE_MICROS


async def test_a_daily_budget_is_drawn_to_the_end_and_begins_again_the_next_day(world: World) -> None:
    budget = 10 * PRICE_MICROS
    number = await world.add_campaign(world.advertiser, daily=budget)
    kept = Kept(world, [make_campaign(number, world.advertiser, budget)])
    drawn, now_ms = 0, NOW_MS
    for _ in range(40):
        await kept.keeper.step(now_ms)
        drawn += kept.draw(number, 99, now_ms, 16 * HOUR_MS)
        now_ms += ASK_AGAIN_MS
    assert drawn == 10
    tomorrow_ms = NOW_MS + 12 * HOUR_MS
    await kept.keeper.step(tomorrow_ms)
    assert kept.draw(number, 1, tomorrow_ms) == 1
    assert await leases(world, "budget_day = '2026-01-02'") == 1


async def test_the_first_who_asks_on_a_new_day_finds_a_lease(world: World) -> None:
    kept = Kept(world, [make_campaign(world.campaign, world.advertiser)])
    await kept.keeper.step(NOW_MS)
    assert kept.draw(world.campaign, 1, NOW_MS) == 1
    await kept.keeper.step(NOW_MS + 1_000)
    tomorrow_ms = NOW_MS + 12 * HOUR_MS
    await kept.keeper.step(tomorrow_ms)
    assert kept.draw(world.campaign, 1, tomorrow_ms) == 1


async def test_a_rest_below_a_bid_does_not_keep_a_new_lease_away(world: World) -> None:
    """A lease of one event's bid, of which the auction took less: what is left is not enough for another."""
    budget = 10 * PRICE_MICROS
    number = await world.add_campaign(world.advertiser, daily=budget)
    kept = Kept(world, [make_campaign(number, world.advertiser, budget)])
    await kept.keeper.step(NOW_MS)
    hold = kept.book.hold(number, PRICE_MICROS, NOW_MS)
    assert hold is not None
    kept.book.keep(hold, UUID(int=1), PRICE_MICROS // 4, NOW_MS + HOUR_MS)
    assert kept.book.hold(number, PRICE_MICROS, NOW_MS) is None
    await kept.keeper.step(NOW_MS + ASK_AGAIN_MS)
    assert kept.draw(number, 1, NOW_MS + ASK_AGAIN_MS) == 1


async def test_the_day_is_that_of_the_campaigns_zone(world: World) -> None:
    kept = Kept(world, [make_campaign(world.campaign, world.advertiser, zone="Pacific/Kiritimati")])
    await kept.keeper.step(NOW_MS)  # noon in UTC is 2 in the morning of the next day there
    assert await leases(world, "budget_day = '2026-01-02'") == 1
    assert kept.book.hold(world.campaign, 1, NOW_MS + 22 * HOUR_MS - 1) is not None
    assert kept.book.hold(world.campaign, 1, NOW_MS + 22 * HOUR_MS) is None


async def test_a_deposit_works_within_two_seconds(world: World) -> None:
    poor = await world.add_advertiser(0)
    number = await world.add_campaign(poor)
    kept = Kept(world, [make_campaign(number, poor)])
    await kept.keeper.step(NOW_MS)
    assert kept.draw(number, 1, NOW_MS) == 0
    await deposit(world.pools.operator, poor, 10 * PRICE_MICROS, "USD", "test", NOW_MS)
    for step in range(1, 3):
        await kept.keeper.step(NOW_MS + step * 1_000)
    assert kept.draw(number, 99, NOW_MS + 2_000) == 10


async def test_a_campaign_that_ends_gives_back_after_its_last_ticket(world: World) -> None:
    kept = Kept(world, [make_campaign(world.campaign, world.advertiser)])
    await kept.keeper.step(NOW_MS)
    kept.draw(world.campaign, 1, NOW_MS)
    kept.run([])
    await kept.keeper.step(NOW_MS + 1_000)
    assert await leases(world, "frozen_at IS NOT NULL AND closed_at IS NULL") == 1
    over_ms = NOW_MS + HOUR_MS + GRACE_MS
    await kept.keeper.step(over_ms - 1)
    assert await leases(world, "closed_at IS NOT NULL") == 0
    await kept.keeper.step(over_ms)
    assert await leases(world, "closed_at IS NOT NULL") == 1
    assert (await reconciled(world.pools.analyst)).exact


async def test_a_campaign_that_is_no_more_leaves_no_purse_behind(world: World) -> None:
    kept = Kept(world, [make_campaign(world.campaign, world.advertiser)])
    await kept.keeper.step(NOW_MS)
    kept.draw(world.campaign, 1, NOW_MS)
    kept.run([])
    await kept.keeper.step(NOW_MS + 1_000)
    assert world.campaign in kept.book.purses, "a ticket may still be charged"
    over_ms = NOW_MS + HOUR_MS + GRACE_MS
    await kept.keeper.step(over_ms)
    kept.run([])
    await kept.keeper.step(over_ms)
    assert kept.book.purses == {}


def note(kept: Kept, *countries: str | None) -> None:
    for country in countries:
        kept.book.traffic.note(country)


async def written(world: World) -> dict[str, int]:
    return {country: count for _, country, count in await world.ledger.traffic(0)}


async def test_traffic_that_could_not_be_written_down_is_written_with_what_came_since(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Unreachable:
        def acquire(self, timeout: float) -> None:
            raise ConnectionRefusedError

    kept = Kept(world, [])
    note(kept, None, "ID", None)
    with monkeypatch.context() as away:
        away.setattr(world.ledger, "_pool", Unreachable())
        with pytest.raises(Away):
            await kept.keeper.step(NOW_MS)
    note(kept, None)
    await kept.keeper.step(NOW_MS)
    assert await written(world) == {"*": 4, "": 3, "ID": 1}


async def test_traffic_whose_commit_is_not_known_is_not_written_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute = asyncpg.Connection.execute

    async def lose_the_answer(*given: Any, **more: Any) -> None:
        await execute(*given, **more)
        raise ConnectionResetError("lost")

    kept = Kept(world, [])
    note(kept, None, "ID")
    with monkeypatch.context() as lossy:
        lossy.setattr(asyncpg.Connection, "execute", lose_the_answer)
        with pytest.raises(Away):
            await kept.keeper.step(NOW_MS)
    note(kept, "ID")
    await kept.keeper.step(NOW_MS)
    assert await written(world) == {"*": 3, "": 1, "ID": 2}


async def test_a_plan_in_which_no_micro_is_due_yet_is_not_off_its_pace(world: World) -> None:
    """A click for a micro: what it may be ahead rounds to nothing."""
    number = await world.add_campaign(world.advertiser, daily=100_000)
    click = structs.replace(
        make_campaign(number, world.advertiser, 100_000, pacing="even"),
        billable="click",
        bid_model="cpc",
        bid_micros=1,
    )
    day_begins_ms = NOW_MS - NOW_MS % DAY_MS
    kept = Kept(world, [click])
    await kept.keeper.step(day_begins_ms)
    hold = kept.book.hold(number, 1, day_begins_ms)
    assert hold is not None
    kept.book.give_back(hold)
    await kept.keeper.step(day_begins_ms)
    assert kept.keeper.off_pace(day_begins_ms) == (0, 0.0)


async def test_stopping_returns_at_once_what_no_ticket_can_claim(world: World) -> None:
    other = await world.add_campaign(world.advertiser)
    kept = Kept(world, [make_campaign(number, world.advertiser) for number in (world.campaign, other)])
    await kept.keeper.step(NOW_MS)
    kept.draw(world.campaign, 1, NOW_MS)
    await kept.keeper.stop(NOW_MS + SPOOLS_TOLD_MS)
    assert await leases(world, "closed_at IS NOT NULL") == 1
    assert await leases(world, "closed_at IS NULL") == 1
    assert kept.draw(world.campaign, 1, NOW_MS + SPOOLS_TOLD_MS) == 0


async def test_the_leases_of_a_lost_replica_come_back_after_the_longest_ticket(world: World) -> None:
    lost = Kept(world, [make_campaign(world.campaign, world.advertiser)], replica=1)
    await lost.keeper.step(NOW_MS)
    heir = Kept(world, [], replica=2)
    await heir.keeper.step(NOW_MS + LOST_AFTER_MS)
    assert await leases(world, "frozen_at IS NOT NULL") == 0
    frozen_ms = NOW_MS + LOST_AFTER_MS + ROUND_MS
    await heir.keeper.step(frozen_ms)
    assert await leases(world, "frozen_at IS NOT NULL") == 1
    assert lost.draw(world.campaign, 1, frozen_ms) == 1
    await lost.keeper.step(frozen_ms)  # it was not lost after all, and takes a new one
    assert lost.draw(world.campaign, 99, frozen_ms) == EVENTS_PER_LEASE_MIN
    assert await leases(world, "frozen_at IS NULL") == 1
    await heir.keeper.step(frozen_ms + DAY_MS + GRACE_MS)
    assert await leases(world, "closed_at IS NOT NULL") >= 1


@pytest.mark.parametrize("ttl_ms", [HOUR_MS, 16 * HOUR_MS])
async def test_a_lost_replicas_ticket_is_charged_up_to_its_end(world: World, ttl_ms: int) -> None:
    lost = Kept(world, [make_campaign(world.campaign, world.advertiser)], replica=1)
    await lost.keeper.step(NOW_MS)
    lost.draw(world.campaign, 1, NOW_MS, ttl_ms)
    await lost.keeper.step(NOW_MS + 1_000)
    heir = Kept(world, [], replica=2)
    for now_ms in (NOW_MS + LOST_AFTER_MS + ROUND_MS, NOW_MS + ttl_ms):
        await heir.keeper.step(now_ms)
    assert await leases(world, "frozen_at IS NULL") == 0
    drawn = lost.book.purses[world.campaign].open[0].lease.id
    (settled,) = await world.journal.settle([world.event(world.ticket(drawn))])
    assert settled.outcome is Outcome.RECORDED


async def test_a_lease_whose_grant_never_arrived_is_given_back(world: World) -> None:
    await world.lease(LEASE_MICROS)  # by this replica, as far as the ledger knows
    kept = Kept(world, [], replica=1)
    for now_ms in (NOW_MS, NOW_MS + SPOOLS_TOLD_MS):
        await kept.keeper.step(now_ms)
    assert await leases(world, "closed_at IS NOT NULL") == 1


@pytest.mark.parametrize("before", ["a start", "a failed step"])
async def test_spools_have_time_to_tell_of_themselves_before_a_lease_is_closed(
    world: World, before: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after an outage, when all of them were silent for more than a day."""
    kept = Kept(world, [])
    now_ms = NOW_MS
    if before == "a failed step":
        now_ms += SPOOLS_TOLD_MS
        await kept.keeper.step(NOW_MS)
        with monkeypatch.context() as away:
            away.setattr(world.ledger, "close_due", None)
            with pytest.raises(TypeError):
                await kept.keeper.step(now_ms)
    lease = await world.lease(LEASE_MICROS)
    await world.ledger.freeze({lease: NOW_MS}, NOW_MS)
    await kept.keeper.step(now_ms)
    await kept.keeper.step(now_ms + SPOOLS_TOLD_MS - 1)
    await kept.keeper.stop(now_ms + SPOOLS_TOLD_MS - 1)
    assert await leases(world, "closed_at IS NULL") == 1
    await kept.keeper.step(now_ms + SPOOLS_TOLD_MS)
    assert await leases(world, "closed_at IS NULL") == 0
