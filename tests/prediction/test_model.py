import numpy as np
import pytest

from adserve.domain.facts import EXPOSURES_UNKNOWN, ViewerFacts
from adserve.prediction import features
from adserve.prediction.features import AdFacts
from adserve.prediction.model import Model

ADS = [AdFacts(ad, ad // 3, ad // 9, "image", "shop_now") for ad in range(30)]
VIEWER = ViewerFacts(
    "ID", ("id-id", "id"), "android", age=27, interests=("music",), hour=13, weekday=3, seen=2
)


def random_model(size: float = 0.05) -> tuple[Model, np.ndarray]:
    weights = np.random.default_rng(4).normal(size=features.BUCKETS) * size
    return Model("lr-test", weights, -2.0), weights


def logit_by_hand(weights: np.ndarray, ad: AdFacts, viewer: ViewerFacts, exposures: int) -> float:
    hashes = features.viewer_hashes(viewer)
    campaign = np.array([features.campaign_hash(ad.campaign)], np.uint64)
    indexes = [
        *hashes.indexes,
        *features.ad_indexes(ad),
        *features.cross(hashes.crossed, campaign).ravel(),
        *features.exposure_indexes(exposures),
    ]
    return float(-2.0 + sum(weights[index] for index in indexes))


@pytest.mark.parametrize("viewer", [VIEWER, ViewerFacts()], ids=["known", "unknown"])
def test_a_row_weighs_its_own_features(viewer: ViewerFacts) -> None:
    model, weights = random_model()
    rows = np.array([5, 0, 29, 5])
    exposures = np.array([0, 3, EXPOSURES_UNKNOWN, 90])
    answer = model.click(model.prepare_facts(ADS), rows, viewer, exposures)
    logits = [
        logit_by_hand(weights, ADS[row], viewer, count) for row, count in zip(rows, exposures, strict=True)
    ]
    assert answer == pytest.approx(1 / (1 + np.exp(-np.array(logits))), abs=1e-12)


def test_no_rows_and_no_ads() -> None:
    model, _ = random_model()
    nothing = np.array([], np.intp)
    assert model.click(model.prepare_facts([]), nothing, VIEWER, nothing).tolist() == []


def test_extreme_weights_stay_probabilities() -> None:
    model, _ = random_model(size=100.0)
    rows = np.arange(len(ADS))
    answer = model.click(model.prepare_facts(ADS), rows, VIEWER, np.zeros_like(rows))
    assert np.all((answer >= 0) & (answer <= 1))
