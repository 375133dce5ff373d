"""Picks what predicts click rates: the trained model where it can be used, else the prior."""

from collections.abc import Mapping
from pathlib import Path

from adserve.prediction import artifact
from adserve.prediction.model import Model
from adserve.prediction.prior import Prior


def load_or_prior(
    folder: Path | None, counts: Mapping[int, tuple[int, int]]
) -> tuple[Model | Prior, str | None]:
    """The rates and, with the prior, the reason why it is not the model. `counts`: ad -> (impressions, clicks)."""
    if folder is None:
        return Prior(counts), "no model is configured"
    try:
        return artifact.load(folder), None
    except artifact.ArtifactRefused as refusal:
        return Prior(counts), str(refusal)
