import numpy as np
import pytest

from adserve.domain.facts import EXPOSURES_MAX, EXPOSURES_UNKNOWN, ViewerFacts
from adserve.prediction import features

VIEWER = ViewerFacts(
    "ID", ("id",), "android", age=27, interests=("music", "food"), hour=13, weekday=3, seen=2
)


def test_every_index_is_a_bucket() -> None:
    hashes = features.viewer_hashes(VIEWER)
    campaigns = np.array([features.campaign_hash(campaign) for campaign in range(100)], np.uint64)
    for indexes in (hashes.indexes, features.cross(hashes.crossed, campaigns)):
        assert indexes.min() >= 0
        assert indexes.max() < features.BUCKETS


def test_crosses_spread_over_the_buckets() -> None:
    """A mix that confused viewers with campaigns would put many pairs into one bucket."""
    viewers = np.array([features.campaign_hash(-viewer) for viewer in range(1, 51)], np.uint64)
    campaigns = np.array([features.campaign_hash(campaign) for campaign in range(1, 101)], np.uint64)
    used = len(np.unique(features.cross(viewers, campaigns)))
    expected = features.BUCKETS * (1 - (1 - 1 / features.BUCKETS) ** 5_000)
    assert used == pytest.approx(expected, abs=60)


def test_only_what_is_known_is_crossed_with_the_campaign() -> None:
    assert len(features.viewer_hashes(VIEWER).crossed) == 5  # country, platform, age and two interests
    assert len(features.viewer_hashes(ViewerFacts()).crossed) == 0


@pytest.mark.parametrize(("younger", "older", "same"), [(18, 24, True), (24, 25, False), (65, 99, True)])
def test_ages_share_a_bracket(younger: int, older: int, same: bool) -> None:
    first, second = (
        features.viewer_hashes(ViewerFacts(age=age)).indexes.tolist() for age in (younger, older)
    )
    assert (first == second) is same


def test_exposures_are_capped_and_unknown_is_not_none() -> None:
    most = features.exposure_indexes(EXPOSURES_MAX).tolist()
    assert features.exposure_indexes(1_000).tolist() == most
    assert len(set(most)) == EXPOSURES_MAX
    assert features.exposure_indexes(0).tolist() == []
    assert len(features.exposure_indexes(EXPOSURES_UNKNOWN)) == 1
