"""The ads of one surface as columns: what every decision asks of an ad, worked out once for a catalogue."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from adserve.domain.ads import Ad, Tier
from adserve.domain.facts import ViewerFacts
from adserve.domain.ids import AdId, CampaignId
from adserve.domain.surfaces import Surface
from adserve.limits.counters import Candidate
from adserve.limits.rules import campaign_key, cap_rules, hide_key, keys_counted, placement_rules
from adserve.selection.index import Rows, TargetingIndex

VIEW_RATE = 0.7
"""The share of impressions that become viewable, for bids that are paid by the view."""

_EVENT_RATES = {"impression": 1.0, "view": VIEW_RATE, "click": None}

Numbers = NDArray[np.float64]


class Rates(Protocol):
    """The probability of a click: a trained model or a prior.

    `wears_out` says that no click becomes likelier by what the viewer has seen of its campaign before.
    """

    name: str
    wears_out: bool

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
        """`earlier` lends what it worked out for ads that have not changed."""
        eligible = [ad for ad in ads if ad.campaign.currency == settings.currency]
        known: Mapping[Ad, CompiledAd] = {} if earlier is None else earlier._compiled
        self._compiled: Mapping[Ad, CompiledAd] = {
            ad: known.get(ad) or _compiled(ad, settings) for ad in eligible
        }
        compiled = list(self._compiled.values())
        self.settings = settings
        self.ads = np.fromiter(compiled, dtype=np.object_, count=len(compiled))
        self.index = TargetingIndex(eligible)
        self.prepared = rates.prepare(eligible)
        self.ad_ids = np.array([ad.id for ad in eligible], dtype=np.uint64)
        self.campaign_keys = [ad.campaign_key for ad in compiled]
        told = qualities or {}
        quality = np.array([told.get(ad.id, 1.0) for ad in eligible])
        thousand = np.array([ad.bid_micros * 1_000.0 for ad in compiled]) * quality
        event_rates = np.array([0.0 if ad.event_rate is None else ad.event_rate for ad in compiled])
        self.fixed_values = thousand * event_rates
        self.click_values = np.where(event_rates == 0.0, thousand, 0.0)
        guaranteed = np.array([ad.guaranteed for ad in compiled], dtype=np.bool_)
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
        campaign_key=campaign_key(campaign.id),
        guaranteed=campaign.tier is Tier.GUARANTEED,
        bid_micros=campaign.event_bid_micros,
        event_rate=_EVENT_RATES[campaign.billable],
        candidate=Candidate(ad.advertiser, campaign.tier, keys, rules),
        unruled=all(rule.key == hide_key(ad.advertiser) for rule in rules),
        sealed_rules=tuple((rule.key, rule.most, rule.window_ms) for rule in cap_rules(ad)),
    )
