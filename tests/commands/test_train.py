import argparse
import asyncio
import random
from pathlib import Path

import pytest

from adserve.commands.train import add_arguments, run
from adserve.prediction import artifact
from adserve.settings import Settings

MAPPING = """
[columns]
time = "at"
time_format = "%Y-%m-%dT%H:%M"
viewer = "viewer"
campaign = "campaign"
click = "click"
"""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    chance = random.Random(5)
    path = tmp_path / "log.csv"
    rows = [
        f"2026-01-{1 + row // 400:02}T{row % 24:02}:00,v{chance.randrange(300)},{1 + row % 3},{int(chance.random() < 0.2)}"
        for row in range(1_200)
    ]
    path.write_text("\n".join(["at,viewer,campaign,click", *rows]))
    (tmp_path / "mapping.toml").write_text(MAPPING)
    return path


def train(*words: str | Path, settings: Settings | None = None) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return run(parser.parse_args(list(map(str, words))), settings or Settings())


def test_a_log_becomes_an_artifact_with_a_card(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = log.parent / "model"
    log.write_text(log.read_text() + "\nnonsense\n")
    arguments = (
        "--log",
        log,
        "--mapping",
        log.parent / "mapping.toml",
        "--out",
        out,
        "--test-from",
        "2026-01-03",
    )
    assert train(*arguments) == 0
    assert artifact.load(out).name.startswith("lr-")
    assert artifact.load_header(out).training.last_at < "2026-01-03"
    assert "log.csv" in (out / "card.md").read_text()
    shown, said = capsys.readouterr()
    assert "| model |" in shown
    assert "line 1202 left out: 1 fields instead of 4" in said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"--log": "absent.csv"}, "absent.csv"),
        ({"--mapping": "absent.toml"}, "absent.toml"),
        ({"--test-from": "2030-01-01"}, "rows from 2030-01-01"),
        ({"--out": "log.csv/model"}, "log.csv"),
    ],
)
def test_what_cannot_be_done_is_said(
    log: Path, capsys: pytest.CaptureFixture[str], change: dict[str, str], said: str
) -> None:
    paths = {"--log": log.name, "--mapping": "mapping.toml", "--out": "model"} | change
    words = [
        word if option == "--test-from" or word.startswith("--") else log.parent / word
        for option, value in paths.items()
        for word in (option, value)
    ]
    assert train(*words) == 1
    assert said in capsys.readouterr().err


def test_a_day_that_is_none_is_a_usage_error(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        train("--out", log.parent / "model", "--test-from", "x")
    assert "is a day such as 2026-01-31" in capsys.readouterr().err


def test_a_log_needs_a_mapping(log: Path) -> None:
    assert train("--log", log, "--out", log.parent / "model") == 2


async def test_without_events_there_is_nothing_to_learn(
    database_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = Settings(database_url=database_url)
    assert await asyncio.to_thread(train, "--out", tmp_path / "model", settings=settings) == 1
    assert "no events are recorded yet" in capsys.readouterr().err
