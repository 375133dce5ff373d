"""The click rate of each ad of late, pulled towards that of all: what stands in for a model that cannot be used."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from adserve.domain.ads import Ad
from adserve.domain.facts import ViewerFacts
from adserve.prediction.features import Integers, Numbers

PRIOR_IMPRESSIONS = 200
"""The weight of the rate of all ads against an ad's own (the beta prior's two parameters add up to it)."""
FIRST_CLICKS, FIRST_IMPRESSIONS = 1, 100
"""What is assumed to have been seen before anything was."""
PERIOD_S = 3_600.0
"""How old its counts may be. All ads are compiled anew for others."""


class Prior:
    name = "prior"
    wears_out = True

    def __init__(self, counts: Mapping[int, tuple[int, int]]) -> None:
        """`counts`: ad -> (impressions, clicks)."""
        impressions = FIRST_IMPRESSIONS + sum(shown for shown, _ in counts.values())
        clicks = FIRST_CLICKS + sum(clicked for _, clicked in counts.values())
        self._rate = clicks / impressions
        self._counts = dict(counts)

    def knows(self, counts: Mapping[int, tuple[int, int]]) -> bool:
        """Whether these are its own."""
        return self._counts == counts

    def prepare(self, ads: Sequence[Ad]) -> tuple[Numbers]:
        return (np.array([self.rate(ad.id) for ad in ads], np.float64),)

    def click(
        self, prepared: tuple[Numbers], rows: Integers, viewer: ViewerFacts, exposures: Integers
    ) -> Numbers:
        return prepared[0].take(rows)

    def bound(
        self, prepared: tuple[Numbers], rows: Integers
    ) -> tuple[Numbers, Callable[[ViewerFacts], float]]:
        return prepared[0].take(rows), lambda _viewer: 1.0

    def rate(self, ad: int) -> float:
        """At most 1: a client may report clicks and no impressions."""
        impressions, clicks = self._counts.get(ad, (0, 0))
        return min(1.0, (clicks + PRIOR_IMPRESSIONS * self._rate) / (impressions + PRIOR_IMPRESSIONS))
