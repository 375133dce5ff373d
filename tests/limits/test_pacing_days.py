"""Whole days of a hundred campaigns on a virtual clock: real book, keeper and pacer over a ledger in memory.

`make pacing-check` runs them with shorter steps and more chance. What holds is written down in docs/pacing.md.
"""

import os
from collections.abc import Callable, Sequence
from datetime import date
from typing import Any
from uuid import UUID

import msgspec
import pytest
from days import SHAPES, FakeLedger, Run, make_campaigns, make_run
from test_keeper import make_campaign
from world import NOW_MS, PRICE_MICROS, World, make_world

from adserve.database.pools import Pools
from adserve.domain.ads import Campaign
from adserve.domain.events import Outcome
from adserve.domain.targeting import Targeting
from adserve.domain.time import SECOND_MS, day_of
from adserve.limits.pacing import Asked, Granted
from adserve.store.books import reconciled

WHOLE = bool(os.environ.get("ADSERVE_WHOLE_DAYS"))
SEEDS = range(1, 6) if WHOLE else (1,)
STEP_MS = (20 if WHOLE else 60) * SECOND_MS
SHARED_STEP_MS = (10 if WHOLE else 60) * SECOND_MS
"""Two processes hear of each other once a step here; in truth, every ten seconds."""

FEW = 24
UNSEEN = {"FL": 1.0, "DI": 8.5, "SP": 10.0, "DY": 23.0}
"""How far, in units of what a learnt shape is allowed, a first day goes astray that could have become any other."""


def of(country: str) -> Callable[[Campaign], bool]:
    return lambda campaign: campaign.targeting.countries == (country,)


def spent_its_budget(run: Run, campaign: Campaign) -> bool:
    """98 % of it, or all but three events."""
    budget = campaign.budget_daily_micros or 0
    return run.charged[campaign.id] >= min(0.98 * budget, budget - 3 * campaign.event_bid_micros)


def within_budgets(run: Run) -> bool:
    """I5: captures within leases, leases within budgets."""
    leases = run.ledger.leases.values()
    return (
        all(lease.captured <= lease.granted for lease in leases)
        and all(run.charged[c.id] <= (c.budget_daily_micros or 0) for c in run.campaigns)
        and all(
            leased <= (run.ledger.campaigns[number].budget_daily_micros or 0)
            for (number, day), leased in run.ledger.leased.items()
            if day is not None
        )
    )


def follows(run: Run, times: float = 1.0) -> bool:
    """Spend is within 2 % of the budget or three events of budget x true curve at each hour."""
    return max(run.errors().values()) <= times


@pytest.mark.parametrize("seed", SEEDS)
async def test_spend_follows_a_learnt_shape_at_every_hour_and_ends_at_the_budget(seed: int) -> None:
    run = await make_run(make_campaigns(seed=seed), learnt_days=5, step_ms=STEP_MS, seed=seed).day()
    assert max(run.errors().values()) <= 1.0
    assert [campaign.id for campaign in run.campaigns if not spent_its_budget(run, campaign)] == []
    assert within_budgets(run)


@pytest.mark.parametrize("seed", SEEDS)
async def test_an_unseen_day_is_followed_as_far_as_it_can_be_told(seed: int) -> None:
    run = await make_run(make_campaigns(seed=seed), step_ms=STEP_MS, seed=seed).day()
    for country, most in UNSEEN.items():
        assert max(run.errors(of(country)).values()) <= most, country
    # After the morning, traffic that dies has too few requests left for what was saved for the afternoon.
    lasting = [campaign for campaign in run.campaigns if not of("DY")(campaign)]
    # What was promised in the last half hour and was not shown came back too late for one of them.
    assert len([campaign.id for campaign in lasting if not spent_its_budget(run, campaign)]) <= 1
    assert within_budgets(run)


@pytest.mark.parametrize(("day", "hours"), [(date(2026, 3, 29), 23), (date(2026, 10, 25), 25)])
async def test_days_of_23_and_25_hours(day: date, hours: int) -> None:
    run = await make_run(make_campaigns(FEW, "Europe/Berlin"), day, learnt_days=5, step_ms=STEP_MS).day()
    assert run.hours == hours
    assert follows(run)
    assert all(spent_its_budget(run, campaign) for campaign in run.campaigns)
    assert within_budgets(run)


async def test_two_processes_share_budget_and_pace() -> None:
    campaigns = make_campaigns(100 if WHOLE else FEW)
    run = await make_run(campaigns, learnt_days=5, step_ms=SHARED_STEP_MS, processes=2).day()
    assert follows(run, 1.25)
    assert sum(spent_its_budget(run, campaign) for campaign in run.campaigns) >= 0.95 * len(campaigns)
    assert within_budgets(run)


async def test_a_killed_process_costs_its_leases_until_their_last_tickets_are_over() -> None:
    """It dies at noon; the other goes on alone, and what the dead one's leases did not capture comes back."""
    campaigns = make_campaigns(FEW)
    lost: dict[int, int] = {}

    def kill(run: Run) -> None:
        book, keeper = run.replicas.pop()
        for campaign in campaigns:
            lost[campaign.id] = sum(account.lease.granted_micros for account in book.purse(campaign.id).open)
        run.ledger.lose(keeper._replica, run.begins_ms + 12 * 3_600_000)

    run = make_run(campaigns, learnt_days=5, step_ms=SHARED_STEP_MS, processes=2, at_hour={12: kill})
    await run.day()
    assert any(lost.values())
    assert within_budgets(run)
    assert all(spent_its_budget(run, campaign) for campaign in campaigns if not of("DY")(campaign))
    for campaign in campaigns:
        passed = run.came[campaign.targeting.countries[0]]
        for hour in range(11, 15):
            plan = (campaign.budget_daily_micros or 0) * passed[hour] / passed[-1]
            allowed = max(0.025 * (campaign.budget_daily_micros or 0), 4 * campaign.event_bid_micros)
            assert abs(run.spent[campaign.id][hour] - plan) <= allowed + lost[campaign.id]


async def test_a_campaign_without_enough_demand_takes_what_there_is() -> None:
    run = await make_run(make_campaigns(FEW), learnt_days=5, step_ms=STEP_MS, demand=0.5).day()
    assert all(0.3 < end < 0.7 for end in run.ends())
    assert within_budgets(run)


async def test_a_budget_raised_at_noon_is_spread_over_the_afternoon() -> None:
    campaigns = [campaign for campaign in make_campaigns(FEW) if of("FL")(campaign)]

    def double(run: Run) -> None:
        run.campaigns = [
            msgspec.structs.replace(campaign, budget_daily_micros=2 * (campaign.budget_daily_micros or 0))
            for campaign in run.campaigns
        ]
        running: dict[int, Campaign] = {campaign.id: campaign for campaign in run.campaigns}
        run.ledger.campaigns = running
        run.replicas[0][1]._campaigns = lambda: running

    run = await make_run(campaigns, learnt_days=5, step_ms=STEP_MS, at_hour={12: double}, demand=8.0).day()
    for before, after in zip(campaigns, run.campaigns, strict=True):
        budget = before.budget_daily_micros or 0
        for hour, share in ((11, 0.5), (15, 0.5 + 0.5), (17, 0.5 + 0.75)):
            allowed = max(0.04 * budget, 3 * before.event_bid_micros)
            assert abs(run.spent[before.id][hour] - share * budget) <= allowed, hour
        assert spent_its_budget(run, after)
    assert within_budgets(run)


class Real:
    """The ledger in PostgreSQL; what viewers see is settled as events."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.campaign_of: dict[int, int] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.world.ledger, name)

    async def take(self, asked: Sequence[Asked], *rest: Any) -> list[Granted]:
        granted = await self.world.ledger.take(asked, *rest)
        self.campaign_of |= {grant.lease: grant.campaign for grant in granted if grant.lease is not None}
        return granted

    async def capture(self, lease: int, micros: int) -> bool:
        ticket = self.world.ticket(lease, campaign=self.campaign_of[lease], price_micros=micros)
        (settled,) = await self.world.journal.settle([self.world.event(ticket)])
        return settled.outcome is Outcome.RECORDED


async def test_two_processes_share_budgets_in_postgresql(pools: Pools) -> None:
    world = await make_world(pools)
    campaigns = []
    for country in SHAPES:
        budget = 100 * PRICE_MICROS
        number = await world.add_campaign(world.advertiser, daily=budget)
        campaign = make_campaign(number, world.advertiser, budget, pacing="even")
        targeting = Targeting(countries=(country,))
        campaigns.append(msgspec.structs.replace(campaign, targeting=targeting))
    for number in (1, 2):
        beats = "INSERT INTO replicas VALUES ($1, '2100-01-01', 1)"
        await world.pools.catalogue.execute(beats, UUID(int=number))
    learnt = FakeLedger(campaigns)
    make_run(campaigns, day_of(NOW_MS), learnt_days=5, ledger=learnt)
    await world.ledger.add_traffic(lambda: learnt.requests)
    run = make_run(
        campaigns, day_of(NOW_MS), ledger=Real(world), step_ms=240 * SECOND_MS, processes=2, demand=6.0
    )
    await run.day()
    assert max(run.errors().values()) <= 1.25
    assert min(run.ends()) > 0.96
    assert (await reconciled(world.pools.analyst)).exact
    assert await world.fetchval(
        "SELECT bool_and(leased_micros <= allowed_micros) FROM budget_uses WHERE budget_day IS NOT NULL"
    )


async def test_control_asap_does_not_follow_the_curve() -> None:
    run = await make_run(make_campaigns(FEW, pacing="asap"), learnt_days=5, step_ms=STEP_MS).day()
    assert not follows(run, 5.0)
    assert within_budgets(run)


class Generous(FakeLedger):
    """Forgets what it has leased."""

    def room(self, asked: object) -> int:
        return asked.wanted_micros


async def test_control_a_ledger_that_grants_too_much_is_found_out() -> None:
    campaigns = make_campaigns(FEW, pacing="asap")
    run = await make_run(campaigns, step_ms=STEP_MS, ledger=Generous(campaigns)).day()
    assert not within_budgets(run)


def test_the_shapes_differ() -> None:
    assert len({tuple(shape(hour) for hour in range(24)) for shape in SHAPES.values()}) == 4
