"""From examples to an artifact with a card: split by time, fit, measure against simpler rates, write."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from adserve.domain.time import rfc3339
from adserve.prediction import artifact
from adserve.prediction.features import Numbers
from adserve.prediction.prior import Prior
from models import fitting
from models.card import CARD_NAME, Report, card
from models.evaluation import Evaluation, evaluate
from models.examples import Example, split_at

TEST_SHARE = 0.2


def train(
    examples: Sequence[Example],
    out: Path,
    *,
    source: str,
    test_from_ms: int | None,
    now: int,
    progress: Callable[[str], None],
) -> Report:
    """Without `test_from_ms`, the last fifth of the examples is for testing. Raises fitting.NotTrainable."""
    if not examples:
        raise fitting.NotTrainable("there are no rows")
    if test_from_ms is None:
        test_from_ms = examples[round((len(examples) - 1) * (1 - TEST_SHARE))].at_ms
    past, future = split_at(examples, test_from_ms)
    clicked = fitting.labels(future)
    if not past or not 0 < clicked.sum() < len(clicked):
        raise fitting.NotTrainable(
            f"rows from {rfc3339(test_from_ms)} on should have clicks and impressions without one, after earlier rows"
        )
    progress(f"learning from {len(past):,} rows, testing on {len(future):,}")
    fitted = fitting.fit(past, progress)
    predictions = {
        "model": fitted.predict(fitting.matrix(future)),
        "model, no consent": fitted.predict(fitting.matrix(map(fitting.impersonal, future))),
        "smoothed rate of the ad": _smoothed(past, future),
        "constant": np.full(len(future), fitting.labels(past).mean()),
    }
    evaluations = {name: evaluate(predicted, clicked) for name, predicted in predictions.items()}
    training = _training(past, fitted.regularisation, evaluations["model"], now)
    header = artifact.save(out, fitted.indexes, fitted.weights, fitted.intercept, training)
    report = Report(source, header, test_from_ms, evaluations)
    (out / CARD_NAME).write_text(card(report), encoding="utf-8")
    return report


def _smoothed(past: Sequence[Example], future: Sequence[Example]) -> Numbers:
    shown = Counter(example.ad.ad for example in past)
    clicked = Counter(example.ad.ad for example in past if example.clicked)
    prior = Prior({ad: (count, clicked[ad]) for ad, count in shown.items()})
    return np.array([prior.rate(example.ad.ad) for example in future])


def _training(
    past: Sequence[Example], regularisation: float, evaluation: Evaluation, now: int
) -> artifact.Training:
    return artifact.Training(
        trained_at=rfc3339(now),
        first_at=rfc3339(past[0].at_ms),
        last_at=rfc3339(past[-1].at_ms),
        rows=len(past),
        clicks=int(fitting.labels(past).sum()),
        regularisation=regularisation,
        metrics={
            "test_rows": evaluation.rows,
            "test_clicks": evaluation.clicks,
            "log_loss": evaluation.log_loss,
            "normalized_entropy": evaluation.normalized_entropy,
            "auc": evaluation.auc,
            "calibration": evaluation.calibration,
        },
    )
