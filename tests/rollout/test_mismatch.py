import math

import numpy as np
import pytest

from adserve.rollout.mismatch import ERROR, mismatch_of

SEQUENCES = 1_500
VIEWERS = 4_000
EVERY = 40


def looks(share: float, seed: int) -> list[list[int]]:
    """How many of so many viewers were exposed, at each look of each sequence."""
    drawn = np.random.default_rng(seed).random((SEQUENCES, VIEWERS)) < share
    counts: list[list[int]] = np.cumsum(drawn, axis=1)[:, EVERY - 1 :: EVERY].tolist()
    return counts


@pytest.mark.parametrize("share", [0.5, 0.95])
def test_p_values_hold_at_every_look_at_once(share: float) -> None:
    level = 0.05
    small = sum(
        any(mismatch_of(k, n - k, share).p_value <= level for n, k in zip(totals(), row, strict=True))
        for row in looks(share, 1)[:300]
    )
    assert small / 300 <= level


def test_control_a_fixed_horizon_test_at_every_look_does_not_hold() -> None:
    found = sum(
        any(abs(k - n / 2) / math.sqrt(n / 4) > 1.96 for n, k in zip(totals(), row, strict=True))
        for row in looks(0.5, 1)[:300]
    )
    assert found / 300 > 0.2


def totals() -> range:
    return range(EVERY, VIEWERS + 1, EVERY)


def test_a_point_more_than_drawn_is_found_among_many_viewers_and_told() -> None:
    found = mismatch_of(51_000, 49_000, 0.5)
    assert found.found
    assert found.p_value < ERROR
    assert found.words.startswith(
        "51,000 exposed viewers, 49,000 in control: 51.00 % exposed, 50.00 % expected, which chance does not explain (p = "
    )
    assert not mismatch_of(510, 490, 0.5).found


def test_the_holdout_as_control_has_the_share_that_it_was_drawn_with() -> None:
    assert not mismatch_of(95_000, 5_000, 0.95).found
    assert mismatch_of(95_000, 4_000, 0.95).found


@pytest.mark.parametrize(("exposed", "control", "share"), [(0, 0, 0.5), (10, 0, 1.0), (0, 10, 0.0)])
def test_without_two_arms_there_is_nothing_to_compare(exposed: int, control: int, share: float) -> None:
    assert mismatch_of(exposed, control, share)[:2] == (False, 1.0)


def test_figures_of_a_large_network_are_compared_as_well() -> None:
    assert not mismatch_of(500_010_000, 499_990_000, 0.5).found
    assert mismatch_of(501_000_000, 499_000_000, 0.5).p_value == 0.0
