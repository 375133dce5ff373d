"""A small market to decide in: ads from a line each, a surface, click rates that are told, and funded budgets."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from leased import remaining_micros

from adserve.catalogue.snapshot import Snapshot
from adserve.domain.ads import Ad, Campaign, Creative, Tier
from adserve.domain.ids import AdId, AdvertiserId, CampaignId, CreativeId
from adserve.domain.rollouts import SurfaceRollout
from adserve.domain.slots import Ask, Context, Viewer
from adserve.domain.surfaces import Surface
from adserve.domain.targeting import Targeting
from adserve.domain.tickets import Ticket
from adserve.domain.time import DAY_MS
from adserve.limits.counters import MemoryCounters
from adserve.limits.hides import Hides
from adserve.limits.leases import LeaseBook
from adserve.limits.purses import Lease
from adserve.selection.compiled import CompiledSurface
from adserve.selection.shelves import Shelves
from adserve.selection.slots import Bounds, Parts, Slots
from adserve.selection.state import View

NOW_MS = 1_767_225_600_000
EVERYBODY = SurfaceRollout(percent_bp=10_000)
GRANT_MICROS = 10_000_000


def make_ad(
    number: int, *, advertiser: int | None = None, campaign: int | None = None, **of_campaign: Any
) -> Ad:
    """Ad, campaign and advertiser carry the same number if not told otherwise; a CPM bid of 5 by default."""
    owner = AdvertiserId(number if advertiser is None else advertiser)
    settings: dict[str, Any] = {
        "starts_at_ms": NOW_MS - DAY_MS,
        "ends_at_ms": None,
        "time_zone": "UTC",
        "bid_model": "cpm",
        "bid_micros": 5_000_000,
        "currency": "USD",
        "billable": "impression",
        "budget_daily_micros": None,
        "budget_total_micros": None,
        "pacing": "asap",
        "tier": Tier.AUCTION,
        "targeting": Targeting(),
        "caps": (),
        "separation": (),
    }
    identity = CampaignId(number if campaign is None else campaign)
    return Ad(
        id=AdId(number),
        advertiser=owner,
        advertiser_name=f"Advertiser {owner}",
        campaign=Campaign(
            id=identity, advertiser=owner, name=f"Campaign {identity}", **settings | of_campaign
        ),
        creative=Creative(
            CreativeId(number),
            1,
            "image",
            "0" * 64,
            1080,
            1920,
            "Headline",
            "",
            "shop_now",
            "https://example.org",
        ),
    )


def per_click(number: int, bid_micros: int, **of_campaign: Any) -> Ad:
    return make_ad(number, bid_model="cpc", billable="click", bid_micros=bid_micros, **of_campaign)


class ToldRates:
    """Click rates by ad; what they were asked is kept in `asked`."""

    name = "told"
    wears_out = True

    def __init__(self, rates: Mapping[int, float] | None = None, otherwise: float = 0.01) -> None:
        self._rates = rates or {}
        self._otherwise = otherwise
        self.asked: list[tuple[Any, list[int]]] = []

    def prepare(self, ads: Sequence[Ad]) -> Any:
        return (np.array([self._rates.get(ad.id, self._otherwise) for ad in ads], dtype=np.float64),)

    def click(self, prepared: Any, rows: Any, viewer: Any, exposures: Any) -> Any:
        self.asked.append((viewer, exposures.tolist()))
        return prepared[0][rows]

    def bound(self, prepared: Any, rows: Any) -> Any:
        return prepared[0][rows], lambda _viewer: 1.0


def make_view(
    ads: Sequence[Ad],
    *,
    surface: Surface | None = None,
    rates: Any = None,
    rollout: SurfaceRollout = EVERYBODY,
    paused: bool = False,
    fresh_at_ms: int = NOW_MS,
) -> View:
    rates = rates or ToldRates()
    compiled = CompiledSurface(surface or Surface(), ads, rates)
    return View(
        Snapshot(7, tuple(ads), {"status": rollout}),
        {"status": compiled},
        {"status": Shelves(compiled, rates)},
        rates,
        paused,
        fresh_at_ms,
    )


def make_ask(viewer: str = "u-1", **told: Any) -> Ask:
    pseudonym = viewer.encode().ljust(16, b".")
    defaults: dict[str, Any] = {
        "viewer": Viewer(viewer, pseudonym, pseudonym[::-1]),
        "surface": "status",
        "feed_length": 30,
        "authors": None,
        "max_ads": 3,
        "context": Context(country="ID"),
        "deadline_ms": 1_000,
    }
    return Ask(**defaults | told)


class Broken:
    """A part of which one method is replaced."""

    def __init__(self, whole: Any, **replaced: Callable[..., Any]) -> None:
        self._whole = whole
        self._replaced = replaced

    def __getattr__(self, name: str) -> Any:
        return self._replaced.get(name) or getattr(self._whole, name)


class PlainSealer:
    """Says what it sealed."""

    def seal(self, ticket: Ticket) -> str:
        return f"sealed {ticket.ticket}"


def fund(book: LeaseBook, ads: Sequence[Ad], granted_micros: int = GRANT_MICROS) -> None:
    for campaign in {ad.campaign.id for ad in ads}:
        book.add(Lease(campaign, campaign, 1, granted_micros, NOW_MS + 365 * DAY_MS))


class Market:
    """Slots over real counters and a funded lease book; each part can be replaced before it is used."""

    def __init__(self, ads: Sequence[Ad], *, fund_micros: int = GRANT_MICROS, **of_view: Any) -> None:
        self.ads = ads
        self.view = make_view(ads, **of_view)
        self.counters: Any = MemoryCounters(1)
        self.hides = Hides()
        self.book: Any = LeaseBook()
        if fund_micros:
            fund(self.book, ads, fund_micros)
        self.sealer: Any = PlainSealer()
        self.bounds = Bounds()
        self.now_ms = NOW_MS
        self.seed = 1
        self.draw: Callable[[], int] = lambda: self.seed
        self.may_serve = True
        self.notes: Any = ()

    @property
    def slots(self) -> Slots:
        parts = Parts(
            *(lambda: self.view, self.counters, self.hides, self.book, self.sealer),
            lambda: self.may_serve,
            self.notes,
        )
        return Slots(parts, lambda: self.now_ms, self.draw, self.bounds)

    async def answer(self, **told: Any) -> Any:
        self.seed += 1
        return await self.slots.answer(make_ask(**told))

    def remaining_micros(self) -> dict[int, int]:
        return {ad.campaign.id: remaining_micros(self.book, ad.campaign.id, self.now_ms) for ad in self.ads}
