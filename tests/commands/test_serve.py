import asyncio
from pathlib import Path

import pytest

from adserve.__main__ import main
from adserve.bootstrap.service import start
from adserve.settings import SettingsError, load


def test_workers_without_redis_are_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("ADSERVE_DATA_HOME", str(tmp_path))
    monkeypatch.delenv("ADSERVE_REDIS_URL", raising=False)
    assert main(["serve", "--workers", "2"]) == 2
    assert "ADSERVE_REDIS_URL" in capsys.readouterr().err


@pytest.mark.parametrize("url", ["redis://127.0.0.1:hush/0", "redis://u:hu/sh@127.0.0.1/0"])
async def test_a_redis_that_is_no_url_is_refused_without_its_password(
    database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, url: str
) -> None:
    with pytest.raises(SettingsError, match=r"^redis_url: is no URL") as refused:
        await start(load(data_home=str(tmp_path), port=0, redis_url=url), database_url)
    assert "hu" not in str(refused.value)


async def test_a_database_that_writes_nothing_is_no_traceback(
    database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ADSERVE_DATABASE_URL", f"{database_url}&default_transaction_read_only=on")
    assert await asyncio.to_thread(main, ["keys", "issue", "--name", "x", "--scope", "feed"]) == 1
    assert "adserve: cannot execute INSERT in a read-only transaction" in capsys.readouterr().err
