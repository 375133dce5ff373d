"""The real way of a slot request and of an event, over counters and an event log that a test gives."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from adserve.catalogue.snapshot import Snapshot
from adserve.domain.ads import Ad, Campaign, Cap, Creative, Tier
from adserve.domain.ids import AdId, AdvertiserId, CampaignId, CreativeId
from adserve.domain.rollouts import SurfaceRollout
from adserve.domain.surfaces import Surface
from adserve.domain.targeting import Targeting
from adserve.domain.time import DAY_MS
from adserve.limits.hides import Hides
from adserve.limits.leases import Lease, LeaseBook
from adserve.metering.intake import Intake
from adserve.metering.origins import Origins
from adserve.metering.pseudonyms import Pseudonyms
from adserve.metering.recorder import Recorder
from adserve.metering.tickets import Sealer, TicketKey
from adserve.metering.traffic import Traffic
from adserve.prediction.prior import Prior
from adserve.selection.slots import Bounds, Parts, Slots
from adserve.selection.state import LiveView, View

START_MS = 1_767_225_600_000
SEALER = Sealer([TicketKey(1, b"k" * 32, 0, None)])

OF_ALL = (Cap("all", 12, 3_600), Cap("all", 60, 86_400))
OF_ADVERTISERS = {
    1: (Cap("advertiser", 6, 86_400),),
    2: (Cap("advertiser", 3, 600), Cap("advertiser", 40, 30 * 86_400)),
    3: (),
}
OF_CAMPAIGNS = {
    1: (Cap("campaign", 1, 60), Cap("campaign", 4, 86_400)),
    2: (Cap("campaign", 2, 3_600), Cap("ad", 1, 600)),
    3: (Cap("campaign", 2, 180 * 86_400),),
    4: (Cap("campaign", 1, 90), Cap("campaign", 5, 3_600), Cap("campaign", 20, 7 * 86_400), Cap("ad", 8, 86_400)),
    5: (Cap("ad", 1, 60),),
    6: (),
}  # fmt: skip  # laid out as rows


def _ad(number: int, campaign: int) -> Ad:
    advertiser = AdvertiserId(1 + campaign % 3)
    return Ad(
        AdId(number), advertiser, f"advertiser {advertiser}",
        Campaign(
            id=CampaignId(campaign), advertiser=advertiser, name=f"campaign {campaign}", starts_at_ms=0, ends_at_ms=None,
            time_zone="UTC", bid_model="cpm", bid_micros=1_000_000 * (10 - campaign), currency="USD",
            billable="impression", budget_daily_micros=None, budget_total_micros=None, pacing="asap",
            tier=Tier.GUARANTEED if campaign == 6 else Tier.AUCTION, targeting=Targeting(), separation=(),
            caps=OF_CAMPAIGNS[campaign] + OF_ADVERTISERS[advertiser] + OF_ALL,
        ),
        Creative(CreativeId(number), 1, "image", "0" * 64, 1080, 1920, "", "", "shop_now", "https://example.org"),
    )  # fmt: skip  # laid out as rows


ADS = tuple(_ad(2 * campaign + nth, campaign) for campaign in OF_CAMPAIGNS for nth in range(2))


class Turning:
    """Lets other clients have their turn before each call that counts."""

    def __init__(self, counters: Any) -> None:
        self._counters = counters

    def __getattr__(self, name: str) -> Any:
        return getattr(self._counters, name)

    async def reserve(self, *asked: Any) -> Any:
        await asyncio.sleep(0)
        return await self._counters.reserve(*asked)

    async def confirm(self, *asked: Any) -> Any:
        await asyncio.sleep(0)
        return await self._counters.confirm(*asked)


@dataclass
class Stack:
    slots: Slots
    intake: Intake
    book: LeaseBook


class Switch(NamedTuple):
    switch_version: int = 1
    paused: bool = False


@asynccontextmanager
async def serving(
    counters: Any, log: Any, clock: Callable[[], int], chance: random.Random
) -> AsyncIterator[Stack]:
    """What a process is, until it is left: then it has crashed."""
    live = LiveView({"status": Surface()}, Prior({}))
    await live.publish(Snapshot(1, ADS, {"status": SurfaceRollout(percent_bp=10_000)}), Switch(), clock())
    book, hides, recorder, turning = LeaseBook(), Hides(), Recorder(log), Turning(counters)
    for campaign in OF_CAMPAIGNS:
        book.add(Lease(campaign, campaign, 1, 1 << 50, START_MS + 20_000 * DAY_MS))

    def view() -> View:
        return live.current()._replace(fresh_at_ms=clock())

    def draw() -> int:
        return chance.getrandbits(128)

    parts = Parts(view, turning, hides, book, SEALER, lambda: True)
    traffic = Traffic(Origins(Pseudonyms()))  # without rules: here a viewer sees more than a person could
    intake = Intake(
        SEALER, turning, book, recorder, draw, hides=hides, may_serve=lambda: True, traffic=traffic
    )
    writing = asyncio.create_task(recorder.run())
    try:
        yield Stack(Slots(parts, clock, draw, Bounds()), intake, book)
    finally:
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
