import os
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adserve.domain.slots import Context
from adserve.simulation.logs import (
    LINE_BYTES_MAX,
    MAPPINGS,
    LogRefused,
    Malformed,
    Row,
    load_mapping,
    read,
)

MAPPING = """
missing = ["", "null"]
time_zone = "Asia/Jakarta"
price_unit_micros = 10_000
[columns]
time = "when"
time_format = "%Y-%m-%d %H:%M"
viewer = "who"
campaign = "what"
click = "clicked"
floor = "paid"
[constants]
country = "ID"
[context]
age = "age"
interests = "likes"
[context.custom]
sex = "gender"
"""
HEAD = "when,who,what,clicked,paid,age,likes,gender"
GOOD = '2026-01-01 07:30,u1,c1,1,101,27,"music,food",f'


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log.csv"


def read_all(log: Path, content: str | bytes, mapping: str = MAPPING) -> list[Row | Malformed]:
    log.write_bytes(content.encode() if isinstance(content, str) else content)
    described = log.with_suffix(".toml")
    described.write_text(mapping)
    return list(read(log, load_mapping(described)))


def test_a_row_is_read_as_the_mapping_says(log: Path) -> None:
    context = Context(
        "ID", age=27, interests=("music", "food"), time_zone="Asia/Jakarta", custom={"sex": "f"}
    )
    row = Row(2, 1_767_227_400_000, "u1", "c1", True, context, None, 1_010_000)  # 00:30 UTC
    assert read_all(log, f"{HEAD}\n{GOOD}\n") == [row]


def test_what_is_missing_is_not_told(log: Path) -> None:
    [row] = read_all(log, f"{HEAD}\n2026-01-01 07:30,u1,c1,0,5,,null,")
    assert isinstance(row, Row)
    assert row.context == Context("ID", time_zone="Asia/Jakarta")


def test_without_a_viewer_column_the_line_is_the_viewer(log: Path) -> None:
    rows = read_all(log, f"{HEAD}\n{GOOD}\n\n{GOOD}\n", MAPPING.replace('viewer = "who"', ""))
    assert [row.viewer for row in rows if isinstance(row, Row)] == ["2", "4"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("1,2,3", "3 fields instead of 8"),
        (GOOD.replace("2026-01-01", "2026-02-30"), "day"),
        (GOOD.replace("2026-01-01 07:30", "0001-01-01 00:00"), "before 1970"),
        (GOOD.replace("2026-01-01 07:30", ""), "when is missing"),
        (GOOD.replace("u1", "null"), "who is missing"),
        (GOOD.replace("c1", ""), "what is missing"),
        (GOOD.replace(",1,", ",yes,"), "a click is 0 or 1, not 'yes'"),
        (GOOD.replace("101", "-1"), "paid is not a price"),
        (GOOD.replace("101", "9" * 20), "paid is not a price"),
        (GOOD.replace("101", "9" * 9_000), "limit"),
        (GOOD.replace("27", "old"), "invalid literal"),
        (GOOD.replace('food"', "food"), "not CSV"),
        ("x" * (3 * LINE_BYTES_MAX), "longer than"),
        (GOOD.encode() + b"\xff", "not UTF-8"),
    ],
)
def test_a_malformed_line_is_named_and_spoils_no_other(log: Path, line: str | bytes, reason: str) -> None:
    spoilt = line if isinstance(line, bytes) else line.encode()
    good = GOOD.encode()
    first, second, third = read_all(log, b"\n".join([HEAD.encode(), good, spoilt, good]))
    assert isinstance(first, Row)
    assert isinstance(second, Malformed)
    assert second.line == 3
    assert reason in second.reason
    assert isinstance(third, Row)
    assert third == first._replace(line=4)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=60)))
def test_no_bytes_end_the_reading(log: Path, lines: list[bytes]) -> None:
    content = b"\n".join([HEAD.encode(), *lines, GOOD.encode()])
    *_, last = read_all(log, content)
    assert isinstance(last, Row)
    assert last.line == content.count(b"\n") + 1


def test_windows_line_ends_and_a_byte_order_mark(log: Path) -> None:
    content = b"\xef\xbb\xbf" + f"{HEAD}\r\n{GOOD}\r\n".encode()
    assert read_all(log, content) == read_all(log, f"{HEAD}\n{GOOD}\n")


def test_progress_adds_up_to_the_size_of_the_file(log: Path) -> None:
    read_all(log, f"{HEAD}\n{GOOD}\n" + "x" * (2 * LINE_BYTES_MAX + 10))
    told: list[int] = []
    list(read(log, load_mapping(log.with_suffix(".toml")), told.append))
    assert sum(told) == log.stat().st_size


@pytest.mark.parametrize(
    ("content", "mapping", "said"),
    [
        ("", MAPPING, "'when'"),
        (f"{HEAD},who\n", MAPPING, "each once"),
        (HEAD.replace("paid", "price"), MAPPING, "'paid'"),
        (HEAD, MAPPING.replace("Asia/Jakarta", "Mars/Olympus"), "Mars/Olympus"),
        (HEAD, MAPPING.replace("floor", "flor"), "flor"),
        (HEAD, MAPPING.replace('click = "clicked"', ""), "click"),
        (HEAD, "[columns", "mapping"),
    ],
)
def test_a_mapping_that_does_not_fit_is_refused(log: Path, content: str, mapping: str, said: str) -> None:
    with pytest.raises(LogRefused, match=said.replace("[", r"\[")):
        read_all(log, content, mapping)


def test_a_log_that_is_not_there_is_refused(log: Path) -> None:
    with pytest.raises(LogRefused, match="No such file"):
        list(read(log, load_mapping(MAPPINGS / "ad_sessions.toml")))


@pytest.mark.parametrize(
    ("name", "rows", "clicks", "campaigns"), [("ad_sessions", 40_792, 2_845, 10), ("rtb_log", 12_526, 5, 2)]
)
def test_the_mappings_fit_the_real_logs(name: str, rows: int, clicks: int, campaigns: int) -> None:
    folder = Path(__file__).parents[2] / os.environ.get("ADSERVE_SHARED_DATA", "../shared/data")
    if not (folder / f"{name}.csv").exists():
        pytest.skip(f"{folder} lacks {name}.csv: ADSERVE_SHARED_DATA names the folder of real logs")
    mapping = load_mapping(MAPPINGS / f"{name}.toml")
    kinds = Counter[type]()
    found = [row for row in read(folder / f"{name}.csv", mapping) if not kinds.update([type(row)])]
    assert kinds == {Row: rows}
    impressions = [row for row in found if isinstance(row, Row)]
    assert sum(row.clicked for row in impressions) == clicks
    assert len({row.campaign for row in impressions}) == campaigns
    if name == "rtb_log":
        assert sum(row.floor_micros or 0 for row in impressions) == 1_210_027 * mapping.price_unit_micros
        assert all((row.bid_micros or 0) >= (row.floor_micros or 0) for row in impressions)
