"""Where ads may stand between organic items."""

from collections.abc import Sequence
from typing import Protocol


class PlacementRules(Protocol):
    first_ad_after: int
    min_gap: int
    max_per_feed: int
    min_feed_length: int


def open_positions(
    rules: PlacementRules, feed_length: int, authors: Sequence[str | None] | None, max_ads: int
) -> tuple[int, ...]:
    """The positions (organic items before the ad) that may be filled, earliest first.

    An ad stands between two items of different authors, never inside a run of one author and never at the end;
    an unknown author differs from every other.
    """
    most = min(rules.max_per_feed, max_ads)
    if feed_length < rules.min_feed_length:
        return ()
    positions: list[int] = []
    position = rules.first_ad_after
    while len(positions) < most and position < feed_length:
        if authors is None or authors[position] is None or authors[position] != authors[position - 1]:
            positions.append(position)
            position += rules.min_gap
        else:
            position += 1
    return tuple(positions)
