"""Serves a trained logistic regression by gathering weights: the same sum as scikit-learn's, without it."""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from math import exp
from typing import NamedTuple

import numpy as np

from adserve.domain.ads import Ad
from adserve.domain.facts import EXPOSURES_MAX, EXPOSURES_UNKNOWN, ViewerFacts
from adserve.prediction import features
from adserve.prediction.features import AdFacts, Hashes, Indexes, Integers, Numbers

VIEWERS_CACHED_MAX = 4_096
"""What is best for a viewer stays on a shelf: a click rate is asked for again soon or hardly ever."""
CROSSES_REMEMBERED_MAX = 4_096
"""Of the ads of a cell."""

LOGIT_MAX = 300.0
"""No sum of weights comes near; beyond it, products of odds are no numbers."""

Prepared = tuple[Numbers, Hashes]
"""What the ads of a snapshot contribute whoever looks, one entry an ad: logits, and hashes of campaigns."""


class _Cell(NamedTuple):
    logit: float
    crossed: Hashes


class Model:
    """`weights` has features.BUCKETS entries."""

    def __init__(self, name: str, weights: Numbers, intercept: float) -> None:
        self.name = name
        self._weights = weights
        self._intercept = intercept
        counts = [*range(EXPOSURES_MAX + 1), EXPOSURES_UNKNOWN]  # the last stands where -1 finds it
        self._exposures = np.array([self._sum(features.exposure_indexes(count)) for count in counts])
        self.wears_out = bool((self._exposures[:-1] <= self._exposures[0]).all())
        self._cell = lru_cache(VIEWERS_CACHED_MAX)(self._new_cell)

    def prepare(self, ads: Sequence[Ad]) -> Prepared:
        return self.prepare_facts([features.ad_facts(ad) for ad in ads])

    def prepare_facts(self, ads: Sequence[AdFacts]) -> Prepared:
        logits = [self._intercept + self._sum(features.ad_indexes(ad)) for ad in ads]
        campaigns = [features.campaign_hash(ad.campaign) for ad in ads]
        return np.array(logits, np.float64), np.array(campaigns, np.uint64)

    def click(self, prepared: Prepared, rows: Integers, viewer: ViewerFacts, exposures: Integers) -> Numbers:
        """The probability that an impression of each of `rows` (of the prepared ads) is clicked.

        `exposures` counts, for each row, the viewer's impressions of its campaign in the last
        EXPOSURE_WINDOW_MS, or is EXPOSURES_UNKNOWN.
        """
        cell = self._cell(viewer)
        of_ads, campaigns = prepared
        crosses = self._weights.take(features.cross(cell.crossed, campaigns.take(rows)))
        logits = np.add.reduce(crosses)
        logits += of_ads.take(rows)
        logits += cell.logit
        logits += self._exposures[np.minimum(exposures, EXPOSURES_MAX)]
        # The logistic function, written so that it cannot overflow.
        probabilities: Numbers = 0.5 + 0.5 * np.tanh(0.5 * logits)
        return probabilities

    def bound(self, prepared: Prepared, rows: Integers) -> tuple[Numbers, Callable[[ViewerFacts], float]]:
        """The odds of each row but for what is the viewer's, and by how much these raise them at the most: a
        probability is less than its odds."""
        of_ads, campaigns = prepared
        odds: Numbers = np.exp(np.minimum(of_ads.take(rows), LOGIT_MAX))
        return odds, partial(self._odds_at_most, campaigns.take(rows), {})

    def _odds_at_most(self, campaigns: Hashes, known: dict[int, float], viewer: ViewerFacts) -> float:
        """`known` is the greatest weight of each cross with one of the `campaigns`, as far as it was asked for."""
        cell = self._cell(viewer)
        logit = cell.logit + float(self._exposures[EXPOSURES_UNKNOWN if viewer.seen is None else 0])
        for crossed in cell.crossed.tolist():
            most = known.get(crossed)
            if most is None:
                if len(known) >= CROSSES_REMEMBERED_MAX:
                    known.clear()
                crosses = features.cross(np.array([crossed], np.uint64), campaigns)
                most = known[crossed] = float(self._weights.take(crosses).max())
            logit += most
        return exp(min(logit, LOGIT_MAX))

    def _new_cell(self, viewer: ViewerFacts) -> _Cell:
        hashes = features.viewer_hashes(viewer)
        return _Cell(self._sum(hashes.indexes), hashes.crossed)

    def _sum(self, indexes: Indexes) -> float:
        return float(self._weights[indexes].sum())
