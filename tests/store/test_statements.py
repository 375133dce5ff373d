from pathlib import Path

import pytest

from adserve.store import statements


def load(text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> object:
    (tmp_path / "sql").mkdir()
    (tmp_path / "sql" / "things.sql").write_text(text)
    monkeypatch.setattr(statements, "files", lambda _: tmp_path)
    return statements.load("things")


def test_each_block_becomes_an_attribute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = "-- A row is a thing.\n\n-- name: one\nSELECT 1;\n\n-- name: two\n-- why\nSELECT 2\n"
    assert vars(load(text, monkeypatch, tmp_path)) == {"one": "SELECT 1;", "two": "-- why\nSELECT 2"}


def test_a_name_given_twice_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="twice"):
        load("-- name: one\nSELECT 1\n-- name: one\nSELECT 2\n", monkeypatch, tmp_path)
