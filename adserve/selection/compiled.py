"""The ads of one surface as columns: what every decision asks of an ad, worked out once for a catalogue."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from adserve.domain.ads import Ad, Tier
from adserve.domain.facts import ViewerFacts
from adserve.domain.ids import AdId, CampaignId
from adserve.domain.surfaces import Surface
from adserve.limits.reservations import Candidate
from adserve.limits.rules import campaign_key, cap_rules, hide_key, keys_counted, placement_rules
from adserve.selection.index import Rows, TargetingIndex
from adserve.selection.splice import Column, Splice

VIEW_RATE = 0.7
"""The share of impressions that become viewable, for bids that are paid by the view."""

_EVENT_RATES = {"impression": 1.0, "view": VIEW_RATE, "click": None}

Numbers = NDArray[np.float64]
Columns = tuple[Column, ...]


class Rates(Protocol):
    """The probability of a click: a trained model or a prior.

    `wears_out` says that no click becomes likelier by what the viewer has seen of its campaign before.
    """

    name: str
    wears_out: bool

    def prepare(self, ads: Sequence[Ad]) -> Columns:
        """What can be computed once for an ad, one entry of each column an ad: passed back to every `click`."""
        ...

    def click(self, prepared: Any, rows: Rows, viewer: ViewerFacts, exposures: NDArray[np.int64]) -> Numbers:
        """P(click | impression) for each row; `exposures` counts what the viewer saw of that row's campaign
        in the last EXPOSURE_WINDOW_MS, or is EXPOSURES_UNKNOWN."""
        ...

    def bound(self, prepared: Any, rows: Rows) -> tuple[Numbers, Callable[[ViewerFacts], float]]:
        """A number for each row and a factor for each viewer: for one who has seen none of the rows, or of whom that is
        unknown, no `click` rate is above their product but for rounding."""
        ...


class CompiledAd(NamedTuple):
    """An ad with what every decision asks of it.

    `bid_micros` is per billable event, `event_rate` how many of these an impression makes; None for clicks, of which
    every decision makes its own prediction. `unruled` ads have no rule but that they were not hidden.
    """

    ad: Ad
    campaign: CampaignId
    campaign_key: str
    guaranteed: bool
    bid_micros: int
    event_rate: float | None
    candidate: Candidate
    unruled: bool
    sealed_rules: tuple[tuple[str, int, int], ...]


class _Columns(NamedTuple):
    """What does not depend on what people hide; bids are micros per 1,000 billable events."""

    ads: NDArray[np.object_]
    campaign_keys: NDArray[np.object_]
    ad_ids: NDArray[np.uint64]
    campaigns: NDArray[np.int64]
    advertisers: NDArray[np.int64]
    bids: Numbers
    event_rates: Numbers
    guaranteed: NDArray[np.bool_]


class CompiledSurface:
    """One surface's ads as columns; row i of every column is `ads[i]`.

    1,000 impressions are worth `fixed_values` (micros), and `click_values` times the click rate where clicks are paid;
    both are lowered by what people hide. `lifts` raise guaranteed ads above all others, where there are any.
    """

    def __init__(
        self,
        settings: Surface,
        ads: Sequence[Ad],
        rates: Rates,
        qualities: Mapping[AdId, float] | None = None,
        earlier: "CompiledSurface | None" = None,
    ) -> None:
        """`earlier`, of the same settings, lends what it worked out for ads that have not changed."""
        self.settings = settings
        self.index: TargetingIndex
        self.prepared: Columns
        self._given = ads
        self._rates = rates
        self._eligible: Sequence[Ad]
        self._columns: _Columns
        if earlier is not None and earlier._given is ads:
            self._eligible, self._columns = earlier._eligible, earlier._columns
            self.index, self.prepared = earlier.index, earlier.prepared
        else:
            self._work_out([ad for ad in ads if ad.campaign.currency == settings.currency], rates, earlier)
        if earlier is not None and earlier._rates is not rates:
            self.prepared = rates.prepare(self._eligible)
        columns = self._columns
        self.ads, self.campaign_keys, self.ad_ids = columns.ads, columns.campaign_keys, columns.ad_ids
        self.campaigns, self.advertisers = columns.campaigns, columns.advertisers
        bids = columns.bids if not qualities else columns.bids * self._qualities(qualities)
        self.fixed_values = bids * columns.event_rates
        self.click_values = np.where(columns.event_rates == 0.0, bids, 0.0)
        self.lifts = np.where(columns.guaranteed, np.inf, 0.0) if columns.guaranteed.any() else None

    def _work_out(self, ads: Sequence[Ad], rates: Rates, earlier: "CompiledSurface | None") -> None:
        splice = None if earlier is None else Splice(earlier._eligible, ads)
        fresh = ads if splice is None else splice.fresh
        prepared, columns = rates.prepare(fresh), _columns_of([compiled(ad, self.settings) for ad in fresh])
        self._eligible = ads
        if earlier is None or splice is None:
            self.index, self.prepared, self._columns = TargetingIndex(fresh), prepared, columns
        else:
            self.index = TargetingIndex(fresh, (earlier.index, splice))
            self.prepared = tuple(map(splice.column, earlier.prepared, prepared))
            self._columns = _Columns(*map(splice.column, earlier._columns, columns))

    def _qualities(self, told: Mapping[AdId, float]) -> Numbers:
        qualities = (told.get(ad.id, 1.0) for ad in self._eligible)
        return np.fromiter(qualities, dtype=np.float64, count=len(self._eligible))


def _columns_of(ads: Sequence[CompiledAd]) -> _Columns:
    return _Columns(
        ads=np.fromiter(ads, dtype=np.object_, count=len(ads)),
        campaign_keys=np.array([ad.campaign_key for ad in ads], dtype=np.object_),
        ad_ids=np.array([ad.ad.id for ad in ads], dtype=np.uint64),
        campaigns=np.array([ad.campaign for ad in ads], dtype=np.int64),
        advertisers=np.array([ad.ad.advertiser for ad in ads], dtype=np.int64),
        bids=np.array([ad.bid_micros * 1_000.0 for ad in ads], dtype=np.float64),
        event_rates=np.array([ad.event_rate or 0.0 for ad in ads], dtype=np.float64),
        guaranteed=np.array([ad.guaranteed for ad in ads], dtype=np.bool_),
    )


def compiled(ad: Ad, settings: Surface) -> CompiledAd:
    rules = placement_rules(
        ad, separation_ms=settings.separation_s * 1_000, min_time_ms=settings.min_time_s * 1_000
    )
    campaign = ad.campaign
    keys = keys_counted(ad.id, campaign.id, ad.advertiser, campaign.separation)
    return CompiledAd(
        ad=ad,
        campaign=campaign.id,
        campaign_key=campaign_key(campaign.id),
        guaranteed=campaign.tier is Tier.GUARANTEED,
        bid_micros=campaign.event_bid_micros,
        event_rate=_EVENT_RATES[campaign.billable],
        candidate=Candidate(ad.advertiser, campaign.tier, keys, rules),
        unruled=all(rule.key == hide_key(ad.advertiser) for rule in rules),
        sealed_rules=tuple((rule.key, rule.most, rule.window_ms) for rule in cap_rules(ad)),
    )
