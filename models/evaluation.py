"""How good predicted probabilities are."""

from typing import NamedTuple

import numpy as np
from sklearn.metrics import roc_auc_score

from adserve.prediction.features import Numbers

RELIABILITY_BINS = 10


class Bin(NamedTuple):
    rows: int
    predicted: float
    actual: float


class Evaluation(NamedTuple):
    """`normalized_entropy` is the log loss over that of always saying the rows' own click rate (He et al., 2014).

    It is below 1 only for predictions that tell more than a constant known in hindsight. `calibration` is
    predicted clicks over actual ones. `reliability` has equal shares of the rows, by rising prediction.
    """

    rows: int
    clicks: int
    log_loss: float
    normalized_entropy: float
    auc: float
    calibration: float
    reliability: tuple[Bin, ...]


def evaluate(predicted: Numbers, clicked: Numbers) -> Evaluation:
    """Needs rows with a click and rows without one."""
    loss = log_loss(predicted, clicked)
    rate = float(clicked.mean())
    order = np.argsort(predicted, kind="stable")
    bins = (
        Bin(len(part), float(predicted[part].mean()), float(clicked[part].mean()))
        for part in np.array_split(order, RELIABILITY_BINS)
        if len(part)
    )
    return Evaluation(
        rows=len(clicked),
        clicks=int(clicked.sum()),
        log_loss=loss,
        normalized_entropy=loss / log_loss(np.full(len(clicked), rate), clicked),
        auc=float(roc_auc_score(clicked, predicted)),
        calibration=float(predicted.sum() / clicked.sum()),
        reliability=tuple(bins),
    )


def log_loss(predicted: Numbers, clicked: Numbers) -> float:
    """Natural logarithms, mean over the rows."""
    chance = np.where(clicked == 1, predicted, 1 - predicted)
    return float(-np.log(chance).mean())
