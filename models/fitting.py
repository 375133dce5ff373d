"""Fits a logistic regression on hashed one-hot features."""

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse
from sklearn.linear_model import LogisticRegression

from adserve.domain.facts import EXPOSURES_MAX, EXPOSURES_UNKNOWN
from adserve.prediction import features
from adserve.prediction.features import Indexes, Numbers
from models.evaluation import log_loss
from models.examples import Example

REGULARISATIONS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
"""Tried as scikit-learn's C: the smaller, the more the weights are pulled to 0."""
VALIDATION_SHARE = 0.2
ITERATIONS_MAX = 2_000


class NotTrainable(ValueError):
    """There is too little to learn from; the message says what is missing."""


class Fit(NamedTuple):
    """`weights` belong to the buckets `indexes`; all others weigh 0. The estimator sees those columns alone."""

    estimator: LogisticRegression
    indexes: Indexes
    weights: Numbers
    intercept: float
    regularisation: float

    def predict(self, matrix: sparse.csr_array) -> Numbers:
        probabilities: Numbers = self.estimator.predict_proba(matrix[:, self.indexes])[:, 1]
        return probabilities


def fit(examples: Sequence[Example], progress: Callable[[str], None]) -> Fit:
    """Takes the regularisation that predicts the last fifth of the examples best, then learns from all of them.

    Raises NotTrainable.
    """
    clicked = labels(examples)
    cut = round(len(examples) * (1 - VALIDATION_SHARE))
    if not 0 < clicked[:cut].sum() < cut:
        raise NotTrainable("the earlier four fifths of the rows need both clicks and impressions without one")
    seen, hidden = matrix(examples), matrix(map(impersonal, examples))
    losses = {}
    for regularisation in REGULARISATIONS:
        fitted = _fit(seen[:cut], hidden[:cut], clicked[:cut], regularisation)
        losses[regularisation] = log_loss(fitted.predict(seen[cut:]), clicked[cut:])
        progress(f"regularisation {regularisation:g}: log loss {losses[regularisation]:.5f} on later rows")
    return _fit(seen, hidden, clicked, min(losses, key=losses.__getitem__))


def labels(examples: Iterable[Example]) -> Numbers:
    return np.fromiter((example.clicked for example in examples), np.float64)


def matrix(examples: Iterable[Example]) -> sparse.csr_array:
    """One row an example, features.BUCKETS columns."""
    viewers = lru_cache(65_536)(features.viewer_hashes)
    ads = lru_cache(65_536)(features.ad_indexes)
    campaigns = lru_cache(65_536)(lambda campaign: np.array([features.campaign_hash(campaign)], np.uint64))
    exposures = lru_cache(None)(lambda count: features.exposure_indexes(min(count, EXPOSURES_MAX)))
    rows = []
    for example in examples:
        viewer = viewers(example.viewer)
        crosses = features.cross(viewer.crossed, campaigns(example.ad.campaign)).ravel()
        parts = (viewer.indexes, ads(example.ad), crosses, exposures(example.exposures))
        rows.append(np.concatenate(parts).astype(np.int32))
    ends = np.cumsum([0, *map(len, rows)])
    indexes = np.concatenate(rows) if rows else np.empty(0, np.int32)
    return sparse.csr_array((np.ones(len(indexes)), indexes, ends), shape=(len(rows), features.BUCKETS))


def impersonal(example: Example) -> Example:
    """The example as it would have been without the viewer's consent."""
    viewer = example.viewer._replace(age=None, interests=(), custom=(), seen=None)
    return example._replace(viewer=viewer, exposures=EXPOSURES_UNKNOWN)


def _fit(seen: Any, hidden: Any, clicked: Numbers, regularisation: float) -> Fit:
    """Every row is learnt twice, the second time as that of a viewer without consent, so that those are predicted well too."""
    both = sparse.vstack([seen, hidden], format="csr")
    indexes = np.unique(both.indices)
    estimator = LogisticRegression(C=regularisation, max_iter=ITERATIONS_MAX, tol=1e-6)
    estimator.fit(both[:, indexes], np.concatenate([clicked, clicked]))
    return Fit(estimator, indexes, estimator.coef_[0], float(estimator.intercept_[0]), regularisation)
