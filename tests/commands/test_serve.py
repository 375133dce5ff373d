from pathlib import Path

import pytest

from adserve.__main__ import main


def test_workers_without_redis_are_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("ADSERVE_DATA_HOME", str(tmp_path))
    monkeypatch.delenv("ADSERVE_REDIS_URL", raising=False)
    assert main(["serve", "--workers", "2"]) == 2
    assert "ADSERVE_REDIS_URL" in capsys.readouterr().err
