import numpy as np
import pytest

from adserve.domain.facts import ViewerFacts
from adserve.prediction.prior import FIRST_CLICKS, FIRST_IMPRESSIONS, PRIOR_IMPRESSIONS, Prior


def test_an_ad_without_impressions_has_the_rate_of_all() -> None:
    prior = Prior({1: (8_000, 400), 2: (1_900, 79)})
    assert prior.rate(3) == pytest.approx((479 + FIRST_CLICKS) / (9_900 + FIRST_IMPRESSIONS))


def test_few_impressions_are_pulled_to_the_rate_of_all_and_many_are_not() -> None:
    prior = Prior({1: (2, 2), 2: (1_000_000, 10_000), 3: (1_000_000, 30_000)})
    overall = prior.rate(4)
    assert prior.rate(1) == pytest.approx((2 + PRIOR_IMPRESSIONS * overall) / (2 + PRIOR_IMPRESSIONS))
    assert prior.rate(1) < 0.04
    assert prior.rate(2) == pytest.approx(0.01, rel=0.001)
    assert prior.rate(3) == pytest.approx(0.03, rel=0.001)


def test_nothing_seen_at_all_still_gives_a_small_rate() -> None:
    assert Prior({}).rate(1) == pytest.approx(FIRST_CLICKS / FIRST_IMPRESSIONS)


def test_it_answers_by_row() -> None:
    prior = Prior({})
    answer = prior.click((np.array([0.1, 0.2, 0.3]),), np.array([2, 0]), ViewerFacts(), np.array([0, 0]))
    assert answer.tolist() == [0.3, 0.1]
