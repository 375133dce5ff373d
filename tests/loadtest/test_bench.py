"""The whole benchmark, as short as it can be: that it measures, not what."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WORDS = [
    "--sizes",
    "50",
    "60",
    "70",
    "--viewers",
    "300",
    "--rounds",
    "1",
    "--seconds",
    "0.2",
    "--events",
    "300",
]


def bench(results: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "loadtest", "--results", str(results), *words],
        cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip  # laid out as rows


@pytest.mark.slow
def test_the_figures_are_written_and_fit_each_other(server_url: str, tmp_path: Path) -> None:
    results = tmp_path / "figures" / "latest.json"
    done = bench(results, *WORDS, ADSERVE_DATABASE_URL=server_url)
    assert done.returncode == 0, done.stderr
    figures = json.loads(results.read_text())
    assert figures["slots_ratio"] == pytest.approx(figures["slots_per_s"] / figures["bare_per_s"], abs=1e-3)
    assert figures["events_batch_ratio"] == pytest.approx(
        figures["events_per_s"] / figures["same_rows_per_s"], abs=1e-3
    )
    assert figures["events_single_ratio"] > 0
    assert figures["narrow_insert_per_s"] > 0
    assert figures["filled"] > 0.3
    assert sum(figures["event_outcomes"].values()) == 360
    assert set(figures["event_outcomes"]) <= {"recorded", "unbilled_kind"}
    wanted = {
        "growth_100_to_100k",
        "rss_mb_10k",
        "rss_mb_100k",
        "p99_ratio_at_70",
        "goodput_at_2x",
        "goodput_at_3x",
    }
    assert all(figures[name] >= 0 for name in wanted)
    with_redis = shutil.which("redis-server") is not None
    assert (figures["slots_ratio_redis"] is not None) is with_redis
    assert (figures["two_worker_cpu_ratio"] is not None) is with_redis
    assert "goodput_at_2x" in done.stdout


def test_a_database_that_is_not_there_is_named(tmp_path: Path) -> None:
    nowhere = "postgresql://nobody@127.0.0.1:1/nothing"
    done = bench(tmp_path / "latest.json", "--quick", ADSERVE_DATABASE_URL=nowhere)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
