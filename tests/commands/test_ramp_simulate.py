import json
from pathlib import Path

import pytest

from adserve.__main__ import main

PLAN = {
    "surface": "status",
    "starts_at": "2026-03-02T12:00:00Z",
    "steps": [
        {"percent": 10, "min_time_s": 3_600},
        {"percent": 50, "min_time_s": 3_600, "min_viewers": 1_000},
    ],
    "guardrails": [{"metric": "ad_load", "direction": "rises", "bound": 2.5, "min_viewers": 50}],
}


@pytest.fixture
def plan(tmp_path: Path) -> str:
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(PLAN))
    return str(path)


def test_it_prints_when_a_plan_advances_and_why(plan: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ramp", "simulate", plan, "--viewers", "10000"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "2026-03-02 12:00 running, step 1, 10 %: the plan starts; step 1 of 2 at 10 %"
    assert lines[1].startswith("2026-03-02 13:00 running, step 2, 50 %: the step was kept for 1.0 h, ")
    assert lines[2].startswith("2026-03-02 14:00 completed, step 2, 50 %: ")
    assert "    fine  ads 1" in lines[4]
    assert lines[-1].startswith("viewers were exposed 100.0% of the time")


def test_it_prints_when_harm_would_have_stopped_it(plan: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ramp", "simulate", plan, "--viewers", "10000", "--effect", "ad_load=4", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["status"], told["waits_for"]) == ("rolled_back", [])
    assert told["moves"][-1]["percent"] < 50
    assert "worse than the 2.5 allowed" in told["moves"][-1]["reason"]
    assert told["exposure_of_schedule"] < 0.5


def test_it_says_what_a_plan_would_wait_for_in_vain(
    plan: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adserve.simulation.ramps.DAYS_MAX", 1)
    assert main(["ramp", "simulate", plan, "--viewers", "300"]) == 0
    assert "\nrunning after 23.98 h: waits for " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--effect", "joy=1"], "'joy=1' is not like session_seconds=-0.04, of statuses_viewed, "),
        (["--effect", "errors=-2"], "a change is between -1 and 1000"),
        (["--viewers", "3000000"], "3,000,000 is more than 2,000,000"),
        (["--seed", "-1"], "'-1' is not a number of at least 0"),
    ],
)
def test_what_cannot_be_simulated_is_refused(
    plan: str, words: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refused:
        main(["ramp", "simulate", plan, *words])
    assert refused.value.code == 2
    assert why in capsys.readouterr().err


def test_a_plan_for_no_surface_is_refused(plan: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path(plan).write_text(json.dumps(PLAN | {"surface": "moon"}))
    assert main(["ramp", "simulate", plan]) == 1
    assert "surface" in capsys.readouterr().err


def test_the_plan_of_the_documentation_is_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adserve.simulation.ramps.DAYS_MAX", 1)
    text = (Path(__file__).parents[2] / "docs" / "rollout.md").read_text()
    path = tmp_path / "plan.json"
    path.write_text(text.partition("```json\n")[2].partition("```")[0])
    assert main(["ramp", "simulate", str(path), "--viewers", "1000"]) == 0
    assert "step 1 of 4 at 0.5 %" in capsys.readouterr().out
