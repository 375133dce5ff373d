"""Replays of logs that the tests write, through the real service and database."""

import json
import re
import signal
import subprocess
from pathlib import Path

from caps import CAP, billed_twice, shown_too_soon
from commands_run import Adserve, Kept, words
from written_logs import MALFORMED, write_auctions, write_sessions

ROWS = 250


async def test_caps_hold_money_adds_up_and_a_rerun_gives_the_same_bytes(
    adserve: Adserve, kept: Kept, tmp_path: Path
) -> None:
    log, mapping = write_sessions(tmp_path, ROWS)
    replay = ("replay", log, "--mapping", mapping, "--cap", CAP, "--json")
    first, again = adserve(*replay, "--keep"), adserve(*replay)
    assert first.code == 0, first.said
    assert first.out == again.out
    report = json.loads(first.out)
    assert report["rows"] == ROWS + len(MALFORMED)
    assert [line["line"] for line in report["malformed_lines"]] == [
        ROWS // 2 + 2 + n for n in range(len(MALFORMED))
    ]
    assert report["placed"] + sum(report["no_fill"].values()) == report["in_rollout"] == ROWS
    assert report["capped"] == report["no_fill"]["frequency_capped"] > 0
    assert report["impressions"] == report["placed"] > 0
    assert 0 < report["clicks"] < report["impressions"]
    assert report["differences"] == []
    database = await kept(first)
    assert await shown_too_soon(database) == 0
    assert await billed_twice(database) == 0
    stored = await database.fetchval("SELECT sum(billed_micros)::bigint FROM events")
    assert (
        stored
        == report["billed_micros"]
        == sum(campaign["billed_micros"] for campaign in report["campaigns"])
    )


async def test_control_without_the_cap_the_same_query_finds_violations(
    adserve: Adserve, kept: Kept, tmp_path: Path
) -> None:
    log, mapping = write_sessions(tmp_path, ROWS)
    ended = adserve("replay", log, "--mapping", mapping, "--keep", "--json")
    assert ended.code == 0, ended.said
    assert await shown_too_soon(await kept(ended)) > 0


def test_chance_and_rollout_are_arguments(adserve: Adserve, tmp_path: Path) -> None:
    log, mapping = write_sessions(tmp_path, ROWS)
    replay = ("replay", log, "--mapping", mapping, "--rows", 150, "--percent", 50, "--json")
    reports = [json.loads(adserve(*replay, "--seed", seed).out) for seed in (1, 2)]
    assert [report["in_rollout"] for report in reports] == [reports[0]["in_rollout"]] * 2
    assert 0 < reports[0]["in_rollout"] < 150
    assert reports[0]["campaigns"] != reports[1]["campaigns"]


def test_auctions_bill_exactly_what_the_log_paid(adserve: Adserve, tmp_path: Path) -> None:
    log, mapping, paid = write_auctions(tmp_path, 300)
    ended = adserve("replay", log, "--mapping", mapping, "--json")
    assert ended.code == 0, ended.said
    report = json.loads(ended.out)
    assert report["impressions"] == 300
    assert report["billed_units"] == paid
    assert report["billed_micros"] == paid * 10


def test_without_json_it_is_a_table(adserve: Adserve, tmp_path: Path) -> None:
    log, mapping = write_sessions(tmp_path, 50)
    ended = adserve("replay", log, "--mapping", mapping)
    assert ended.code == 0, ended.said
    assert "reconciliation: exact" in ended.out


def test_what_cannot_be_replayed_is_refused_in_a_sentence(adserve: Adserve, tmp_path: Path) -> None:
    log, mapping = write_sessions(tmp_path, 50)
    missing = adserve("replay", tmp_path / "missing.csv", "--mapping", mapping)
    assert (missing.code, missing.said.count("\n")) == (1, 1)
    mapping.write_text(mapping.read_text().replace('"user"', '"nobody"'))
    ended = adserve("replay", log, "--mapping", mapping)
    assert ended.code == 1
    assert "no column 'nobody'" in ended.said
    assert adserve("replay", log, "--mapping", mapping, "--cap", "campaign:0/60").code == 2


def test_ctrl_c_stops_it_and_reports_what_was_done(surroundings: dict[str, str], tmp_path: Path) -> None:
    log, mapping = write_sessions(tmp_path, 5_000)
    command = words("replay", log, "--mapping", mapping, "--json", "--progress")
    with subprocess.Popen(
        command, env=surroundings, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stderr is not None
        said = b""
        while not re.search(rb"replaying: +[1-9]", said):
            said += process.stderr.read1()
            assert process.poll() is None, said
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    report = json.loads(out)
    assert process.returncode == 130
    assert not report["complete"]
    assert 0 < report["placed"] < 5_000
    assert report["differences"] == []
