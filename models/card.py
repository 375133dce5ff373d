"""The model card: what a person should know before letting a model price ads (Mitchell et al., 2019)."""

from collections.abc import Iterable
from typing import NamedTuple

from adserve.domain.time import rfc3339
from adserve.prediction.artifact import Header
from adserve.prediction.features import SCHEMA
from models.evaluation import Evaluation

CARD_NAME = "card.md"

_LIMITS = """\
- It predicts clicks on an impression of an ad that was chosen by whatever wrote the data; ads and viewers that the data
  lacks are predicted from what they share with others, or from the average alone.
- Click rates drift from day to day, and a model cannot know tomorrow's: see the calibration. Train again often.
- Exposures before the first row are unknown to it, so the first week of a log understates them.
- Parts of the viewer that the data lacks change nothing in its predictions, however well a caller names them.
- A click may be an accident, and many viewers who are persuaded never click."""


class Report(NamedTuple):
    """Evaluations of rows from `test_from_ms` on, by what predicted them; nothing of those rows was learnt from."""

    source: str
    header: Header
    test_from_ms: int
    evaluations: dict[str, Evaluation]


def card(report: Report) -> str:
    training = report.header.training
    model = report.evaluations["model"]
    return f"""\
# Click model lr-{report.header.weights_sha256[:8]}

Logistic regression on hashed one-hot features, trained {training.trained_at}, regularisation C = {training.regularisation:g}
(chosen on the last fifth of the rows learnt from).

## Data

{report.source}: {training.rows:,} impressions with {training.clicks:,} clicks from {training.first_at} to
{training.last_at}. Tested on the {model.rows:,} impressions with {model.clicks:,} clicks from
{rfc3339(report.test_from_ms)} on, none of which it has seen.

Viewer: {_listed("viewer")}. Ad: {_listed("ad")}. Crosses: {_listed("crosses")}.

## Metrics

{metrics_table(report.evaluations)}

Normalized entropy is the log loss over that of a constant that knows the tested rows' own click rate; calibration is
predicted clicks over actual ones. The constant and the smoothed rate know the rows before the test alone.

## Reliability

{reliability_table(model)}

## Limits

{_LIMITS}
"""


def metrics_table(evaluations: dict[str, Evaluation]) -> str:
    return _table(
        ("prediction", "normalized entropy", "AUC", "calibration", "log loss"),
        (
            (name, f"{e.normalized_entropy:.4f}", f"{e.auc:.4f}", f"{e.calibration:.3f}", f"{e.log_loss:.5f}")
            for name, e in evaluations.items()
        ),
    )


def reliability_table(evaluation: Evaluation) -> str:
    return _table(
        ("rows, by rising prediction", "predicted", "actual"),
        ((f"{b.rows:,}", f"{b.predicted:.4f}", f"{b.actual:.4f}") for b in evaluation.reliability),
    )


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    rule = ("---", *("--:" for _ in head[1:]))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *rows))


def _listed(part: str) -> str:
    return ", ".join(SCHEMA[part])
