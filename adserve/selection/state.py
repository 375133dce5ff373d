"""What one decision reads: a snapshot compiled for each surface, and the operator's switch."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from adserve.catalogue.snapshot import Snapshot
from adserve.domain.ads import Ad, Tier
from adserve.domain.facts import ViewerFacts
from adserve.domain.ids import CampaignId
from adserve.domain.surfaces import Surface
from adserve.limits.counters import Candidate
from adserve.limits.rules import campaign_key, cap_rules, keys_counted, placement_rules
from adserve.selection.index import Rows, TargetingIndex

VIEW_RATE = 0.7
"""The share of impressions that become viewable, for bids that are paid by the view."""

_EVENT_RATES = {"impression": 1.0, "view": VIEW_RATE, "click": None}

Numbers = NDArray[np.float64]


class Rates(Protocol):
    """The probability of a click: a trained model or a prior."""

    name: str

    def prepare(self, ads: Sequence[Ad]) -> Any:
        """What can be computed once for a catalogue: passed back to every `click`."""
        ...

    def click(self, prepared: Any, rows: Rows, viewer: ViewerFacts, exposures: NDArray[np.int64]) -> Numbers:
        """P(click | impression) for each row; `exposures` counts what the viewer saw of that row's campaign
        in the last EXPOSURE_WINDOW_MS, or is EXPOSURES_UNKNOWN."""
        ...


class CompiledAd(NamedTuple):
    """An ad with what every decision asks of it.

    `bid_micros` is per billable event, `event_rate` how many of these an impression makes; None for clicks, of which
    every decision makes its own prediction.
    """

    ad: Ad
    campaign: CampaignId
    bid_micros: int
    event_rate: float | None
    candidate: Candidate
    sealed_rules: tuple[tuple[str, int, int], ...]


class CompiledSurface:
    """One surface's ads as columns; row i of every column is `ads[i]`.

    1,000 impressions are worth `fixed_values` (micros), and `click_values` times the click rate where clicks are paid.
    `lifts` raise guaranteed ads above all others, where there are any.
    """

    def __init__(self, settings: Surface, ads: Sequence[Ad], rates: Rates) -> None:
        eligible = [ad for ad in ads if ad.campaign.currency == settings.currency]
        self.settings = settings
        self.ads = np.fromiter((_compiled(ad, settings) for ad in eligible), dtype=np.object_)
        self.index = TargetingIndex(eligible)
        self.prepared = rates.prepare(eligible)
        self.ad_ids = np.array([ad.id for ad in eligible], dtype=np.uint64)
        self.campaign_keys = [campaign_key(ad.campaign.id) for ad in eligible]
        worth = [(compiled.bid_micros * 1_000.0, compiled.event_rate) for compiled in self.ads]
        self.fixed_values = np.array([0.0 if rate is None else bid * rate for bid, rate in worth])
        self.click_values = np.array([bid if rate is None else 0.0 for bid, rate in worth])
        guaranteed = np.array([ad.campaign.tier is Tier.GUARANTEED for ad in eligible], dtype=np.bool_)
        self.lifts = np.where(guaranteed, np.inf, 0.0) if guaranteed.any() else None


def _compiled(ad: Ad, settings: Surface) -> CompiledAd:
    rules = placement_rules(
        ad, separation_ms=settings.separation_s * 1_000, min_time_ms=settings.min_time_s * 1_000
    )
    campaign = ad.campaign
    keys = keys_counted(ad.id, campaign.id, ad.advertiser, campaign.separation)
    return CompiledAd(
        ad=ad,
        campaign=campaign.id,
        bid_micros=campaign.event_bid_micros,
        event_rate=_EVENT_RATES[campaign.billable],
        candidate=Candidate(ad.advertiser, campaign.tier, keys, rules),
        sealed_rules=tuple((rule.key, rule.most, rule.window_ms) for rule in cap_rules(ad)),
    )


class View(NamedTuple):
    """Swapped whole at every change. `fresh_at_ms` is when the snapshot was last known to be the newest."""

    snapshot: Snapshot
    surfaces: Mapping[str, CompiledSurface]
    rates: Rates
    paused: bool
    fresh_at_ms: int


class Switch(Protocol):
    @property
    def switch_version(self) -> int: ...

    @property
    def paused(self) -> bool: ...


class LiveView:
    """Holds the view that decisions read, and swaps it whole."""

    def __init__(self, surfaces: Mapping[str, Surface], rates: Rates) -> None:
        self._surfaces = surfaces
        self._rates = rates
        self._view: View | None = None
        self._switch_version = 0
        self._paused_over: int | None = None

    def current(self) -> View:
        if self._view is None:
            raise RuntimeError("no snapshot has been published yet")
        return self._view

    def pause(self) -> None:
        """Stops ads on this replica alone, PostgreSQL or not, until an operator moves the switch again."""
        self._paused_over = self._switch_version
        if self._view is not None:
            self._view = self._view._replace(paused=True)

    async def publish(self, snapshot: Snapshot, switch: Switch, confirmed_at_ms: int) -> None:
        """Compiles a new snapshot off the event loop; a known one is only confirmed."""
        self._switch_version = switch.switch_version
        view = self._view
        surfaces = (
            view.surfaces
            if view is not None and view.snapshot is snapshot
            else await asyncio.to_thread(self._compile, snapshot)
        )
        paused = switch.paused or self._paused_over == switch.switch_version
        self._view = View(snapshot, surfaces, self._rates, paused, confirmed_at_ms)

    def _compile(self, snapshot: Snapshot) -> dict[str, CompiledSurface]:
        return {
            name: CompiledSurface(settings, snapshot.ads, self._rates)
            for name, settings in self._surfaces.items()
        }
