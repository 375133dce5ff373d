"""On a real log: trained on 2-4 July 2017, tested on 5 July."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from adserve.domain.time import to_ms
from adserve.simulation.logs import MAPPINGS, Row, load_mapping, read
from models.card import Report
from models.examples import from_row, with_exposures
from models.training import train


@pytest.fixture(scope="module")
def report(sessions_log: Path, tmp_path_factory: pytest.TempPathFactory) -> Report:
    mapping = load_mapping(MAPPINGS / "ad_sessions.toml")
    rows = (row for row in read(sessions_log, mapping) if isinstance(row, Row))
    return train(
        with_exposures(map(from_row, rows)),
        tmp_path_factory.mktemp("model"),
        source=sessions_log.name,
        test_from_ms=to_ms(datetime(2017, 7, 5, tzinfo=UTC)),
        now=0,
        progress=lambda _: None,
    )


@pytest.mark.slow
def test_the_model_beats_the_smoothed_rate_and_the_constant(report: Report) -> None:
    model = report.evaluations["model"]
    smoothed = report.evaluations["smoothed rate of the ad"]
    constant = report.evaluations["constant"]
    assert (model.rows, model.clicks) == (10_443, 621)
    assert model.log_loss < smoothed.log_loss < constant.log_loss
    assert model.normalized_entropy < 0.996
    assert model.auc > 0.57 > smoothed.auc
    assert abs(model.calibration - 1) < abs(smoothed.calibration - 1)


@pytest.mark.slow
def test_the_model_without_consent_still_beats_the_constant(report: Report) -> None:
    assert report.evaluations["model, no consent"].log_loss < report.evaluations["constant"].log_loss
