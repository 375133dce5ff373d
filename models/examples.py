"""What a model learns from: impressions in time order, with what was known before each."""

from bisect import bisect_left
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

import mmh3

from adserve.domain.facts import EXPOSURE_WINDOW_MS, EXPOSURES_UNKNOWN, ViewerFacts, facts_of
from adserve.domain.ids import CATALOGUE_ID_MAX
from adserve.domain.time import DAY_MS
from adserve.prediction.features import AdFacts
from adserve.prediction.impressions import Impression
from adserve.simulation.logs import Row

CHOSEN_BEFORE_MAX_MS = DAY_MS
"""No ticket lasts longer."""


class Example(NamedTuple):
    at_ms: int
    viewer: ViewerFacts
    ad: AdFacts
    exposures: int
    clicked: bool


def from_row(row: Row) -> Impression:
    """A log names no ads: each campaign counts as one ad of an advertiser that is the same for all."""
    campaign = _campaign_id(row.campaign)
    ad = AdFacts(ad=campaign, campaign=campaign, advertiser=0, kind="", call_to_action="")
    return Impression(row.at_ms, row.viewer, facts_of(row.context, True, row.at_ms), ad, row.clicked)


def with_exposures(impressions: Iterable[Impression]) -> list[Example]:
    """Sorts by time (impressions of one moment keep their order) and counts for each what came before it."""
    histories: dict[str | bytes, deque[tuple[int, int]]] = defaultdict(deque)
    return [
        _unknown_past(impression)
        if impression.viewer is None
        else _counted_past(impression, histories[impression.viewer])
        for impression in sorted(impressions, key=lambda impression: impression.at_ms)
    ]


def split_at(examples: Sequence[Example], at_ms: int) -> tuple[Sequence[Example], Sequence[Example]]:
    """The examples before a moment and those from it on."""
    at = bisect_left(examples, at_ms, key=lambda example: example.at_ms)
    return examples[:at], examples[at:]


def _unknown_past(impression: Impression) -> Example:
    return Example(impression.at_ms, impression.facts, impression.ad, EXPOSURES_UNKNOWN, impression.clicked)


def _counted_past(impression: Impression, history: deque[tuple[int, int]]) -> Example:
    """Counts the viewer's `history` of (time, campaign) as it was when the ad was chosen, where all of it has the viewer's name on it; then
    adds this impression to it. Of ads that were chosen together none has seen the others, as when they are served."""
    at_ms, campaign = impression.at_ms, impression.ad.campaign
    chosen_ms = at_ms if impression.chosen_ms is None else impression.chosen_ms
    since_ms = chosen_ms - EXPOSURE_WINDOW_MS
    while history and history[0][0] <= at_ms - EXPOSURE_WINDOW_MS - CHOSEN_BEFORE_MAX_MS:
        history.popleft()
    seen = [shown for when_ms, shown in history if since_ms < when_ms <= chosen_ms]
    history.append((at_ms, campaign))
    if impression.named_from_ms is not None and impression.named_from_ms > since_ms:
        return _unknown_past(impression)
    facts = impression.facts._replace(seen=len(seen))
    return Example(at_ms, facts, impression.ad, seen.count(campaign), impression.clicked)


@lru_cache(maxsize=65_536)
def _campaign_id(name: str) -> int:
    """The number that a log's campaign is called by, or one made of its name."""
    if name.isdecimal() and int(name) <= CATALOGUE_ID_MAX:
        return int(name)
    return mmh3.hash64(name, signed=False)[0] & CATALOGUE_ID_MAX
