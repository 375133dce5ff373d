import asyncio
import json
import os
from pathlib import Path

import pytest

from adserve.__main__ import main
from adserve.api.ramps import EXAMPLE


@pytest.fixture
def plan(tmp_path: Path) -> str:
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(EXAMPLE))
    return str(path)


async def ran(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = await asyncio.to_thread(main, ["ramp", *words])
    said = capsys.readouterr()
    return code, said.out, said.err


async def test_a_plan_is_made_shown_and_moved(
    database_url: str, plan: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ADSERVE_DATABASE_URL", database_url)
    assert (await ran(capsys, "status"))[:2] == (0, "no plan is active\n")
    code, made, _ = await ran(capsys, "plan", plan)
    assert (code, made[:61]) == (0, "plan 1 for status in ID: scheduled at step 0 of 3, 0 %: waits")
    held, _, why = await ran(capsys, "plan", plan)
    assert (held, "Plan 1 holds a place" in why) == (1, True)
    code, paused, _ = await ran(capsys, "pause", "1", "--reason", "a look first")
    assert (code, "paused at step 0 of 3, 0 %: a look first; waits for a person" in paused) == (0, True)
    assert (await ran(capsys, "status"))[1] == paused
    assert (await ran(capsys, "approve", "1"))[0] == 1
    code, _, why = await ran(capsys, "rollback", "1", "--step", "2")
    assert (code, "stands at step 0" in why) == (1, True)
    assert (await ran(capsys, "rollback", "1", "--step", "0"))[0] == 0
    _, whole, _ = await ran(capsys, "status", "1")
    assert "step 3: 25 %, 86,400 s and 20,000 viewers at the least, with approval: ahead" in whole
    assert "on the command line, pause: paused at 0 %: a look first" in whole
    told = json.loads((await ran(capsys, "status", "1", "--json"))[1])
    assert [row["act"] for row in told["history"]] == ["plan", "pause", "roll-back"]


async def test_all_ads_are_paused_whatever_is_planned(
    database_url: str, plan: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ADSERVE_DATABASE_URL", database_url)
    await ran(capsys, "plan", plan)
    assert (await ran(capsys, "pause", "--all-ads"))[:2] == (0, "all ads paused: 0 of 0 replicas obey\n")
    assert (await ran(capsys, "status"))[1].startswith("all ads are paused\nplan 1")
    assert (await ran(capsys, "resume", "--all-ads"))[0] == 0


async def test_a_user_without_a_name_can_pause_all_ads(
    database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in a container that runs as some number."""
    monkeypatch.setenv("ADSERVE_DATABASE_URL", database_url)
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 54_321)
    assert (await ran(capsys, "pause", "--all-ads"))[0] == 0


def test_a_file_that_is_no_plan_is_refused_by_field(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "plan.json"
    for wrong, field in (({"steps": []}, "$.steps"), ({"reason": "a\0"}, "$.reason")):
        path.write_text(json.dumps(EXAMPLE | wrong))
        with pytest.raises(SystemExit) as exit_:
            main(["ramp", "plan", str(path)])
        assert (exit_.value.code, field in capsys.readouterr().err) == (2, True)


def test_all_ads_have_no_step(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ramp", "pause", "--all-ads", "--step", "3"]) == 2
    assert "--step" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["status", "9" * 30], "is no id"),
        (["status", "-1"], "is not a number of at least 1"),
        (["abort", "1", "--reason", ""], "length >= 1"),
        (["abort", "1", "--reason", "\udcff"], "surrogates not allowed"),
    ],
)
def test_what_cannot_be_written_down_is_refused(
    words: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refused:
        main(["ramp", *words])
    assert (refused.value.code, why in capsys.readouterr().err) == (2, True)
