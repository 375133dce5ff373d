from datetime import timedelta

import pytest
from msgspec.structs import replace
from world import NOW_MS, World

from adserve.domain.events import Outcome
from adserve.domain.facts import ViewerFacts
from adserve.domain.time import DAY_MS, HOUR_MS, day_of
from adserve.domain.traffic import Reason, Verdict
from adserve.prediction.features import AdFacts
from adserve.prediction.impressions import Impression
from adserve.store.learning import Learning

EXPIRED_MS = NOW_MS + HOUR_MS
MONTH_MS = NOW_MS - NOW_MS % DAY_MS
"""It is the first."""

MEDIA = "INSERT INTO media (sha256, content_type, bytes, width, height) VALUES ($1, 'image/png', 1, 1, 1)"
CREATIVE = """
INSERT INTO creatives (id, advertiser_id, kind, media, headline, call_to_action, landing_url)
VALUES (31, $1, 'image', $2, 'h', 'shop_now', 'https://shop.example/')"""


@pytest.fixture
async def learning(world: World) -> Learning:
    media = "0" * 64
    await world.pools.operator.execute(MEDIA, media)
    await world.pools.operator.execute(CREATIVE, world.advertiser, media)
    return Learning(world.pools.analyst)


async def test_an_impression_is_told_with_its_viewer_and_click(world: World, learning: Learning) -> None:
    lease = await world.lease(100_000)
    seen, clicked = (world.ticket(lease, viewer_log=bytes([n]) * 16, country="") for n in (1, 2))
    await world.journal.settle(
        [world.event(seen), world.event(clicked), world.event(clicked, "click", Outcome.UNBILLED_KIND)]
    )
    told = await learning.impressions(day_of(NOW_MS), EXPIRED_MS)
    facts = ViewerFacts(platform="android", surface="status")
    ad = AdFacts(12, world.campaign, world.advertiser, "image", "shop_now")
    assert sorted(told, key=lambda impression: str(impression.viewer)) == [
        Impression(NOW_MS + 1_000, b"\1" * 16, facts, ad, False, MONTH_MS, NOW_MS),
        Impression(NOW_MS + 1_000, b"\2" * 16, facts, ad, True, MONTH_MS, NOW_MS),
    ]


@pytest.mark.parametrize(
    ("outcome", "told"),
    [(Outcome.RECORDED, 1), (Outcome.UNBILLED_KIND, 1), (Outcome.LATE, 0), (Outcome.OVER_CAP, 0)],
)
async def test_what_did_not_count_teaches_nothing(
    world: World, learning: Learning, outcome: Outcome, told: int
) -> None:
    await world.journal.settle([world.event(world.ticket(await world.lease(10_000)), outcome=outcome)])
    assert len(await learning.impressions(day_of(NOW_MS), EXPIRED_MS)) == told


@pytest.mark.parametrize(
    ("outcome", "clicked"),
    [
        (Outcome.RECORDED, True),
        (Outcome.OVER_BUDGET, True),
        (Outcome.LATE, False),
        (Outcome.INVALID_TRAFFIC, False),
    ],
)
async def test_a_click_that_nobody_could_be_charged_for_is_none(
    world: World, learning: Learning, outcome: Outcome, clicked: bool
) -> None:
    """Nor may it depend on the day of training: a late one may come at any time."""
    ticket = world.ticket(await world.lease(10_000), billable="click")
    reason = Reason.DECLARED_BOT if outcome is Outcome.INVALID_TRAFFIC else None
    click = replace(world.event(ticket, "click", outcome), verdict=Verdict(reason, 1))
    await world.journal.settle([world.event(ticket, outcome=Outcome.UNBILLED_KIND), click])
    (impression,) = await learning.impressions(day_of(NOW_MS), EXPIRED_MS)
    assert impression.clicked is clicked


async def test_what_may_still_be_clicked_waits(world: World, learning: Learning) -> None:
    await world.journal.settle([world.event(world.ticket(await world.lease(10_000)))])
    assert await learning.impressions(day_of(NOW_MS), EXPIRED_MS - 1) == []
    assert len(await learning.impressions(day_of(NOW_MS), EXPIRED_MS)) == 1


async def test_an_erased_viewer_is_nobody(world: World, learning: Learning) -> None:
    await world.journal.settle([world.event(world.ticket(await world.lease(10_000)))])
    async with world.pools.owner.acquire() as connection:
        await connection.execute("DELETE FROM viewer_log")
    [impression] = await learning.impressions(day_of(NOW_MS), EXPIRED_MS)
    assert impression.viewer is None


async def test_days_span_what_is_recorded(world: World, learning: Learning) -> None:
    assert await learning.days() is None
    lease = await world.lease(10_000)
    earlier = world.ticket(lease, issued_at_ms=NOW_MS - DAY_MS, expires_at_ms=NOW_MS - DAY_MS + HOUR_MS)
    await world.journal.settle([world.event(world.ticket(lease)), world.event(earlier)])
    today = day_of(NOW_MS)
    assert await learning.days() == (today - timedelta(days=1), today)
