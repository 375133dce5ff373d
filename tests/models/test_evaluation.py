import math

import numpy as np
import pytest

from models.evaluation import evaluate


def test_a_constant_that_knows_the_rate_has_normalized_entropy_one() -> None:
    clicked = np.array([1.0, 0.0, 0.0, 0.0] * 25)
    evaluation = evaluate(np.full(100, 0.25), clicked)
    assert evaluation.normalized_entropy == pytest.approx(1)
    assert evaluation.calibration == pytest.approx(1)
    assert evaluation.auc == pytest.approx(0.5)
    assert evaluation.log_loss == pytest.approx(-0.25 * math.log(0.25) - 0.75 * math.log(0.75))


def test_better_order_shows_in_auc_and_too_high_rates_in_calibration() -> None:
    clicked = np.array([0.0, 0.0, 0.0, 1.0])
    evaluation = evaluate(np.array([0.2, 0.3, 0.5, 1 - 1e-9]), clicked)
    assert evaluation.auc == 1
    assert evaluation.calibration == pytest.approx(2)


def test_reliability_covers_every_row_by_rising_prediction() -> None:
    predicted = np.linspace(0.9, 0.1, 25)
    bins = evaluate(predicted, (predicted > 0.5).astype(float)).reliability
    assert sum(part.rows for part in bins) == 25
    assert [part.predicted for part in bins] == sorted(part.predicted for part in bins)
    assert (bins[0].actual, bins[-1].actual) == (0, 1)
