from pathlib import Path

import numpy as np
import pytest

from adserve.prediction import artifact

TRAINING = artifact.Training(
    trained_at="2026-01-02T00:00:00.000Z",
    first_at="2026-01-01T00:00:00.000Z",
    last_at="2026-01-01T23:59:59.000Z",
    rows=1_000,
    clicks=50,
    regularisation=0.1,
    metrics={"auc": 0.6},
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sound artifact."""
    indexes = np.array([3, 70, 4_000])
    artifact.save(tmp_path / "model", indexes, np.array([0.5, -0.25, 1.5]), -2.0, TRAINING)
    return tmp_path / "model"
