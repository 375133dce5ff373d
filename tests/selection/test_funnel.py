"""What the funnel counts is what a count of each decision by itself comes to."""

import asyncio
from collections import Counter, defaultdict
from random import Random
from typing import Any

import pytest
from market import NOW_MS, Market, make_ad, make_view
from msgspec.structs import replace
from test_recording import random_ask, random_market

from adserve.domain.ads import Cap
from adserve.domain.time import HOUR_MS
from adserve.selection import funnel
from adserve.selection.funnel import Flush, Funnel, Generation
from adserve.selection.made import Made

Figures = dict[tuple[int, int], Counter[str]]


class Kept:
    """A store in memory, and what it comes to by (hour, campaign)."""

    def __init__(self) -> None:
        self.flushes: list[Flush] = []
        self.generations: dict[tuple[str, int], Generation] = {}
        self.spans: dict[int, tuple[int, bool]] = {}
        self.away = False

    async def save(self, begun_ms: int, to_ms: int, generations: Any, flushes: Any, *, ended: bool) -> None:
        if self.away:
            raise ConnectionError
        self.spans[begun_ms] = (to_ms, ended)
        self.flushes += flushes
        self.generations |= {(each.surface, each.number): each for each in generations}

    def figures(self) -> Figures:
        figures: Figures = defaultdict(Counter)
        for flush in self.flushes:
            hour = flush.hour_ms // HOUR_MS
            for campaign in self.generations["status", flush.generation.number].campaigns.tolist():
                figures[hour, campaign]["eligible"] += flush.looked
            for name in ("targeted", "ranked", "in_budget", "under_cap", "placed"):
                for campaign, count in zip(
                    flush.campaigns.tolist(), getattr(flush, name).tolist(), strict=name == "targeted"
                ):
                    figures[hour, campaign][name] += count
        return {key: +counts for key, counts in figures.items() if +counts}


def counted_one_by_one(decisions: list[Made]) -> Figures:
    """The oracle: looks at each decision and each of its ads by itself."""
    figures: Figures = defaultdict(Counter)
    for made in decisions:
        viewer, hour = made.planned.viewer, made.now_ms // HOUR_MS
        if viewer is None:
            continue
        surface = made.view.surfaces["status"]
        campaigns = {ad.campaign.id: ad.campaign for ad in made.view.snapshot.ads}
        for campaign in campaigns.values():
            if campaign.starts_at_ms <= made.now_ms < (campaign.ends_at_ms or 1 << 60):
                figures[hour, campaign.id]["eligible"] += 1
        matched = {surface.ads[row].campaign for row in surface.index.match(viewer, made.now_ms)}
        for campaign_id in matched:
            figures[hour, campaign_id]["targeted"] += 1
        ads, held = made.planned.ranked.ads, made.held
        for ad in ads[: held.reached]:
            figures[hour, ad.campaign]["ranked"] += 1
        capped = [place for place, _ in made.grant.capped] if made.grant else []
        for nth, place in enumerate(held.places):
            figures[hour, ads[place].campaign]["in_budget"] += 1
            if made.grant and nth not in capped:
                figures[hour, ads[place].campaign]["under_cap"] += 1
        for given in made.awards:
            figures[hour, given.ticket.campaign]["placed"] += 1
    return dict(figures)


@pytest.mark.parametrize("seed", range(10))
async def test_it_counts_what_a_count_one_by_one_comes_to(seed: int) -> None:
    market, chance, kept = random_market(seed), Random(seed), Kept()
    market.now_ms = NOW_MS + HOUR_MS - 20_000
    market.ads = [
        replace(ad, campaign=replace(ad.campaign, ends_at_ms=market.now_ms + 9_500)) if ad.id % 5 == 0 else ad
        for ad in market.ads
    ]
    market.view = make_view(market.ads, fresh_at_ms=market.now_ms)
    noted: list[Made] = []
    counting = Funnel(kept, market.now_ms)
    market.notes = (noted.append, counting.note)
    for _ in range(40):
        for _ in range(chance.randrange(8)):
            market.seed = chance.getrandbits(128)
            await market.slots.answer(random_ask(chance))
        market.now_ms += 1_000
        if chance.random() < 0.1:
            market.view = make_view(
                chance.sample(market.ads, len(market.ads) // 2), fresh_at_ms=market.now_ms
            )
        await counting.step(market.now_ms)
    await counting.step(market.now_ms, ended=True)
    assert len({hour for hour, _ in kept.figures()}) == 2
    assert kept.figures() == counted_one_by_one(noted)
    assert kept.spans == {NOW_MS + HOUR_MS - 20_000: (market.now_ms, True)}
    looked = [made for made in noted if made.planned.viewer]
    assert kept.figures() != counted_one_by_one(looked[1:]), "control: it would show one decision more"


async def market_of_one(kept: Kept) -> tuple[Market, Funnel]:
    market = Market([make_ad(1, caps=(Cap("campaign", 1, 3_600),))])
    counting = Funnel(kept, market.now_ms)
    market.notes = (counting.note,)
    return market, counting


async def test_while_the_database_is_away_nothing_is_lost() -> None:
    kept = Kept()
    market, counting = await market_of_one(kept)
    kept.away = True
    for _ in range(3):
        await market.answer()
        market.now_ms += 1_000
        with pytest.raises(ConnectionError):
            await counting.step(market.now_ms)
    kept.away = False
    await counting.step(market.now_ms)
    assert kept.figures()[NOW_MS // HOUR_MS, 1] == {
        "eligible": 3, "targeted": 3, "ranked": 3, "in_budget": 3, "under_cap": 1, "placed": 1,
    }  # fmt: skip  # laid out as rows
    assert kept.spans == {NOW_MS: (market.now_ms, False)}


async def test_counting_that_is_cut_short_breaks_the_span() -> None:
    kept = Kept()
    market, counting = await market_of_one(kept)
    await market.answer()
    step = asyncio.create_task(counting.step(NOW_MS + 1_000))
    await asyncio.sleep(0)
    step.cancel()
    await asyncio.wait([step])
    await counting.step(NOW_MS + 2_000, ended=True)
    assert kept.spans == {NOW_MS + 2_000: (NOW_MS + 2_000, True)}


async def test_more_than_may_wait_is_lost_and_breaks_the_span(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Kept()
    market, counting = await market_of_one(kept)
    monkeypatch.setattr(funnel, "NOTES_MAX", 2)
    await market.answer()
    await counting.step(NOW_MS + 1_000)
    for _ in range(3):
        await market.answer()
    await counting.step(NOW_MS + 2_000)
    await counting.step(NOW_MS + 3_000)
    assert kept.spans == {NOW_MS: (NOW_MS + 1_000, False), NOW_MS + 2_000: (NOW_MS + 3_000, False)}


async def test_an_outage_that_is_too_long_breaks_the_span(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Kept()
    market, counting = await market_of_one(kept)
    monkeypatch.setattr(funnel, "PENDING_MAX", 2)
    await counting.step(NOW_MS + 1_000)
    kept.away = True
    for second in range(2, 6):
        await market.answer()
        with pytest.raises(ConnectionError):
            await counting.step(NOW_MS + second * 1_000)
    kept.away = False
    await counting.step(NOW_MS + 6_000)
    assert kept.spans == {NOW_MS: (NOW_MS + 1_000, False), NOW_MS + 4_000: (NOW_MS + 6_000, False)}


async def test_the_same_campaigns_are_said_once() -> None:
    kept = Kept()
    market, counting = await market_of_one(kept)
    for _ in range(3):
        await market.answer()
        market.view = make_view(list(market.ads))
        await counting.step(market.now_ms)
    assert len(kept.generations) == 1
