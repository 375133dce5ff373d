from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from adserve.domain.facts import EXPOSURES_UNKNOWN, ViewerFacts, facts_of
from adserve.domain.slots import Context
from adserve.prediction import artifact, features
from adserve.prediction.model import Model
from models import fitting
from models.card import CARD_NAME
from models.evaluation import evaluate
from models.examples import Example
from models.fitting import NotTrainable
from models.training import train

NOW = 1_767_312_000_000


def quiet(_: str) -> None:
    pass


@pytest.fixture(scope="module")
def fitted(examples: list[Example]) -> fitting.Fit:
    return fitting.fit(examples, quiet)


@pytest.fixture(scope="module")
def served(fitted: fitting.Fit, tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("model")
    training = artifact.Training("", "", "", 0, 0, fitted.regularisation, {})
    artifact.save(folder, fitted.indexes, fitted.weights, fitted.intercept, training)
    return artifact.load(folder)


def serve(model: Model, examples: Sequence[Example]) -> np.ndarray:
    prepared = model.prepare_facts([example.ad for example in examples])
    answers = [
        model.click(prepared, np.array([row]), example.viewer, np.array([example.exposures]))
        for row, example in enumerate(examples)
    ]
    return np.concatenate(answers)


def test_serving_agrees_with_the_estimator(
    fitted: fitting.Fit, served: Model, examples: list[Example]
) -> None:
    some = [*examples[:300], *map(fitting.impersonal, examples[:300])]
    assert np.abs(serve(served, some) - fitted.predict(fitting.matrix(some))).max() < 1e-9


def test_control_features_that_differ_by_a_hash_seed_would_be_noticed(
    fitted: fitting.Fit, served: Model, examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = fitted.predict(fitting.matrix(examples[:100]))
    monkeypatch.setattr("adserve.prediction.features.HASH_SEED", 1)
    monkeypatch.setattr("adserve.prediction.features._hash", features._hash.__wrapped__)  # knows no token yet
    assert np.abs(serve(served, examples[:100]) - trained).max() > 1e-3


def test_probabilities_are_calibrated_in_the_large(fitted: fitting.Fit, examples: list[Example]) -> None:
    clicked = fitting.labels(examples)
    for rows in (examples, map(fitting.impersonal, examples)):
        predicted = fitted.predict(fitting.matrix(rows))
        assert predicted.sum() / clicked.sum() == pytest.approx(1, abs=0.02)


def test_control_balanced_classes_would_not_be_calibrated(examples: list[Example]) -> None:
    rows, clicked = fitting.matrix(examples), fitting.labels(examples)
    balanced = fitting.LogisticRegression(class_weight="balanced").fit(rows, clicked)
    assert balanced.predict_proba(rows)[:, 1].sum() / clicked.sum() > 1.5


def test_each_further_sight_lowers_the_click_rate(served: Model, examples: list[Example]) -> None:
    prepared = served.prepare_facts([examples[0].ad])
    counts = np.arange(5)
    rates = served.click(prepared, np.zeros_like(counts), ViewerFacts("ID", platform="android"), counts)
    assert np.all(np.diff(rates) < 0)
    many = served.click(prepared, np.zeros_like(counts), ViewerFacts("ID", platform="android"), counts + 4)
    assert many == pytest.approx(rates[-1])


def test_without_consent_a_viewer_is_predicted_as_without_consent() -> None:
    context = Context(
        "ID", "id", "android", age=27, interests=("music",), time_zone="Asia/Jakarta", custom={"a": "b"}
    )
    known, hidden = (facts_of(context, consent, NOW) for consent in (True, False))
    example = Example(NOW, known._replace(seen=3), None, 2, False)
    assert fitting.impersonal(example) == example._replace(viewer=hidden, exposures=EXPOSURES_UNKNOWN)


def test_the_artifact_is_what_was_measured(examples: list[Example], tmp_path: Path) -> None:
    report = train(examples, tmp_path, source="invented", test_from_ms=None, now=NOW, progress=quiet)
    future = [example for example in examples if example.at_ms >= report.test_from_ms]
    again = evaluate(serve(artifact.load(tmp_path), future), fitting.labels(future))
    model = report.evaluations["model"]
    assert again.auc == pytest.approx(model.auc, abs=1e-9)
    assert again.log_loss == pytest.approx(model.log_loss, abs=1e-9)
    assert report.header.training.rows + model.rows == len(examples)
    assert model.normalized_entropy < report.evaluations["smoothed rate of the ad"].normalized_entropy
    assert model.normalized_entropy < report.evaluations["constant"].normalized_entropy
    card = (tmp_path / CARD_NAME).read_text()
    assert f"| model | {model.normalized_entropy:.4f} | {model.auc:.4f} |" in card


@pytest.mark.parametrize("clicked", [True, False])
def test_one_kind_of_row_is_not_enough(examples: list[Example], tmp_path: Path, clicked: bool) -> None:
    alike = [example._replace(clicked=clicked) for example in examples[:100]]
    with pytest.raises(NotTrainable):
        train(alike, tmp_path, source="", test_from_ms=None, now=NOW, progress=quiet)
    with pytest.raises(NotTrainable):
        fitting.fit(alike, quiet)


def test_no_rows_are_not_enough(tmp_path: Path) -> None:
    with pytest.raises(NotTrainable, match="no rows"):
        train([], tmp_path, source="", test_from_ms=None, now=NOW, progress=quiet)


def test_a_test_before_all_rows_is_refused(examples: list[Example], tmp_path: Path) -> None:
    with pytest.raises(NotTrainable, match="after earlier rows"):
        train(examples, tmp_path, source="", test_from_ms=0, now=NOW, progress=quiet)
    assert list(tmp_path.iterdir()) == []
