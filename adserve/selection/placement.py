"""Where ads may stand between organic items."""

from collections.abc import Sequence

from adserve.domain.surfaces import Surface


def open_positions(
    surface: Surface, feed_length: int, authors: Sequence[str | None] | None, max_ads: int
) -> tuple[int, ...]:
    """The positions (organic items before the ad) that may be filled, earliest first.

    An ad stands between two items of different authors, never inside a run of one author and never at the end;
    an unknown author differs from every other.
    """
    most = min(surface.max_per_feed, max_ads)
    if feed_length < surface.min_feed_length:
        return ()
    positions: list[int] = []
    position = surface.first_ad_after
    while len(positions) < most and position < feed_length:
        if authors is None or authors[position] is None or authors[position] != authors[position - 1]:
            positions.append(position)
            position += surface.min_gap
        else:
            position += 1
    return tuple(positions)
