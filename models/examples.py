"""What a model learns from: impressions in time order, with what was known before each."""

from bisect import bisect_left
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

import mmh3

from adserve.domain.ids import CATALOGUE_ID_MAX
from adserve.domain.slots import Context
from adserve.domain.time import from_ms
from adserve.prediction.features import EXPOSURE_WINDOW_MS, AdFacts, ViewerFacts, local_time
from adserve.simulation.logs import Row


class Impression(NamedTuple):
    """An impression as a source tells it; `viewer` is only compared. Its `facts` hold no exposures yet."""

    at_ms: int
    viewer: str | bytes
    facts: ViewerFacts
    ad: AdFacts
    clicked: bool


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
    return Impression(row.at_ms, row.viewer, _facts(row.context, row.at_ms), ad, row.clicked)


def with_exposures(impressions: Iterable[Impression]) -> list[Example]:
    """Sorts by time (impressions of one moment keep their order) and counts for each what came before it."""
    histories: dict[str | bytes, deque[tuple[int, int]]] = defaultdict(deque)
    examples = []
    for impression in sorted(impressions, key=lambda impression: impression.at_ms):
        history = histories[impression.viewer]
        while history and history[0][0] <= impression.at_ms - EXPOSURE_WINDOW_MS:
            history.popleft()
        campaign = impression.ad.campaign
        exposures = sum(1 for _, shown in history if shown == campaign)
        viewer = impression.facts._replace(seen=len(history))
        examples.append(Example(impression.at_ms, viewer, impression.ad, exposures, impression.clicked))
        history.append((impression.at_ms, campaign))
    return examples


def split_at(examples: Sequence[Example], at_ms: int) -> tuple[Sequence[Example], Sequence[Example]]:
    """The examples before a moment and those from it on."""
    at = bisect_left(examples, at_ms, key=lambda example: example.at_ms)
    return examples[:at], examples[at:]


def _facts(context: Context, at_ms: int) -> ViewerFacts:
    hour, weekday = local_time(from_ms(at_ms).astimezone(_zone(context.time_zone or "UTC")))
    return ViewerFacts(
        country=context.country,
        language=context.language,
        platform=context.platform,
        age=context.age,
        interests=context.interests,
        hour=hour,
        weekday=weekday,
        custom=tuple(sorted(context.custom.items())),
    )


@lru_cache
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


@lru_cache(maxsize=65_536)
def _campaign_id(name: str) -> int:
    """The number that a log's campaign is called by, or one made of its name."""
    if name.isdecimal() and int(name) <= CATALOGUE_ID_MAX:
        return int(name)
    return mmh3.hash64(name, signed=False)[0] & CATALOGUE_ID_MAX
