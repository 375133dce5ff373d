from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adserve.domain.facts import EXPOSURE_WINDOW_MS, EXPOSURES_UNKNOWN, ViewerFacts
from adserve.domain.slots import Context
from adserve.prediction.features import AdFacts
from adserve.prediction.impressions import Impression
from adserve.simulation.logs import Row
from models.examples import Example, from_row, split_at, with_exposures


def shown(at_ms: int, viewer: str | None, campaign: int) -> Impression:
    return Impression(
        at_ms, viewer, ViewerFacts(), AdFacts(campaign, campaign, 1, "image", ""), clicked=False
    )


def pasts(examples: Iterable[Example]) -> list[tuple[int, int | None]]:
    return [(example.exposures, example.viewer.seen) for example in examples]


def test_exposures_count_the_campaign_and_seen_counts_all() -> None:
    log = [shown(1, "a", 1), shown(2, "a", 2), shown(3, "b", 1), shown(4, "a", 1)]
    assert pasts(with_exposures(log)) == [(0, 0), (0, 1), (0, 0), (1, 2)]


def test_what_left_the_window_is_forgotten() -> None:
    log = [shown(0, "a", 1), shown(EXPOSURE_WINDOW_MS - 1, "a", 1), shown(EXPOSURE_WINDOW_MS, "a", 1)]
    assert pasts(with_exposures(log)) == [(0, 0), (1, 1), (1, 1)]


def test_a_viewer_nobody_knows_has_an_unknown_past() -> None:
    assert pasts(with_exposures([shown(1, None, 1), shown(2, None, 1)])) == [(EXPOSURES_UNKNOWN, None)] * 2


def test_ads_that_were_chosen_together_have_not_seen_each_other() -> None:
    """Nor has one that was chosen before another was seen."""
    feed = [shown(at_ms, "a", campaign)._replace(chosen_ms=1) for at_ms, campaign in ((2, 1), (3, 1), (9, 2))]
    later = shown(10, "a", 1)._replace(chosen_ms=8)
    assert pasts(with_exposures([*feed, later])) == [(0, 0), (0, 0), (0, 0), (2, 2)]
    old = EXPOSURE_WINDOW_MS + 2
    assert pasts(with_exposures([*feed, shown(old + 5, "a", 1)._replace(chosen_ms=old)]))[-1] == (1, 2)


def test_of_a_viewer_with_a_new_name_the_past_is_unknown_for_as_long_as_it_counts() -> None:
    log = [
        shown(at_ms, "a", 1)._replace(named_from_ms=1)
        for at_ms in (1, EXPOSURE_WINDOW_MS, EXPOSURE_WINDOW_MS + 1)
    ]
    assert pasts(with_exposures(log)) == [(EXPOSURES_UNKNOWN, None)] * 2 + [(1, 1)]


@given(
    st.lists(st.tuples(st.integers(0, 10**9), st.sampled_from("ab"), st.integers(1, 2)), unique=True),
    st.data(),
)
def test_the_future_changes_nothing(log: list[tuple[int, str, int]], data: st.DataObject) -> None:
    """In whatever order the log comes, dropping its end leaves what came before as it was."""
    log.sort(key=lambda row: row[0])
    cut = data.draw(st.integers(0, len(log)))
    shuffled = data.draw(st.permutations(log[:cut]))
    unique_times = len({row[0] for row in log}) == len(log)
    past = with_exposures(shown(*row) for row in (shuffled if unique_times else log[:cut]))
    assert with_exposures(shown(*row) for row in log)[:cut] == past


def test_control_counting_over_the_whole_log_would_be_noticed() -> None:
    log = [shown(1, "a", 1), shown(2, "a", 1)]
    hindsight = [example._replace(exposures=1) for example in with_exposures(log)]
    assert hindsight[:1] != with_exposures(log[:1])


@pytest.mark.parametrize(("name", "number"), [("405490", 405_490), ("spring sale", None), ("9" * 30, None)])
def test_campaigns_of_a_log_become_numbers(name: str, number: int | None) -> None:
    row = Row(2, 0, "v", name, False, Context(time_zone="UTC"), None, None)
    made = from_row(row).ad.campaign
    assert made == (made if number is None else number)
    assert 0 <= made < 2**53
    assert made == from_row(row).ad.campaign


def test_the_split_is_by_time() -> None:
    examples = with_exposures(shown(at_ms, "a", 1) for at_ms in (5, 6, 6, 7))
    past, future = split_at(examples, 6)
    assert [example.at_ms for example in past] == [5]
    assert [example.at_ms for example in future] == [6, 6, 7]
