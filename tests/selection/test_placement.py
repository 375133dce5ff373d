from collections.abc import Sequence
from functools import cache
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from adserve.domain.surfaces import Surface
from adserve.selection.placement import open_positions

SURFACES = st.builds(
    Surface,
    first_ad_after=st.integers(1, 6),
    min_gap=st.integers(1, 5),
    max_per_feed=st.integers(1, 4),
    min_feed_length=st.integers(1, 8),
)
AUTHORS = st.lists(st.sampled_from(["a", "b", "c", None]), max_size=14)
MOST = st.integers(1, 5)
FEW = settings(derandomize=True, max_examples=150, deadline=None)


def may_stand(authors: Sequence[str | None], position: int) -> bool:
    before, after = authors[position - 1], authors[position]
    return before is None or after is None or before != after


def most_possible(surface: Surface, authors: Sequence[str | None], most: int) -> int:
    """The largest number of ads that any choice of positions allows."""

    @cache
    def best(position: int, left: int) -> int:
        if left == 0 or position >= len(authors):
            return 0
        without = best(position + 1, left)
        if not may_stand(authors, position):
            return without
        return max(without, 1 + best(position + surface.min_gap, left - 1))

    return best(surface.first_ad_after, most)


@given(surface=SURFACES, authors=AUTHORS, max_ads=MOST)
@FEW
def test_every_rule_holds(surface: Surface, authors: list[str | None], max_ads: int) -> None:
    positions = open_positions(surface, len(authors), authors, max_ads)
    assert len(positions) <= min(surface.max_per_feed, max_ads)
    assert all(surface.first_ad_after <= position < len(authors) for position in positions)
    gaps = [later - earlier for earlier, later in pairwise(positions)]
    assert all(gap >= surface.min_gap for gap in gaps)
    assert all(may_stand(authors, position) for position in positions), "inside an author's run"
    if len(authors) < surface.min_feed_length:
        assert positions == ()


@given(surface=SURFACES, authors=AUTHORS, max_ads=MOST)
@FEW
def test_no_other_choice_has_room_for_more(surface: Surface, authors: list[str | None], max_ads: int) -> None:
    if len(authors) >= surface.min_feed_length:
        positions = open_positions(surface, len(authors), authors, max_ads)
        assert len(positions) == most_possible(surface, tuple(authors), min(surface.max_per_feed, max_ads))


@given(surface=SURFACES, length=st.integers(0, 30), max_ads=MOST)
@FEW
def test_unknown_authors_all_differ(surface: Surface, length: int, max_ads: int) -> None:
    alone = open_positions(surface, length, None, max_ads)
    assert alone == open_positions(surface, length, [None] * length, max_ads)
    assert alone == open_positions(surface, length, [str(number) for number in range(length)], max_ads)


def test_one_author_alone_leaves_no_place() -> None:
    assert open_positions(Surface(), 30, ["a"] * 30, 3) == ()
