"""An impression as training sees it, whichever source tells of it."""

from typing import NamedTuple

from adserve.domain.facts import ViewerFacts
from adserve.prediction.features import AdFacts


class Impression(NamedTuple):
    """`viewer` is only compared; None when nobody knows any more who it was. What the viewer saw before `named_from_ms` has another
    name on it. The ad was chosen at `chosen_ms` (None: when it was shown), by what had been seen until then. `facts.seen` is not filled in."""

    at_ms: int
    viewer: str | bytes | None
    facts: ViewerFacts
    ad: AdFacts
    clicked: bool
    named_from_ms: int | None = None
    chosen_ms: int | None = None
