from pathlib import Path

import pytest

from adserve.database import statements


def load(text: str, folder: Path) -> object:
    path = folder / "things.sql"
    path.write_text(text)
    return statements.load(path)


def test_each_block_becomes_an_attribute(tmp_path: Path) -> None:
    text = "-- A row is a thing.\n\n-- name: one\nSELECT 1;\n\n-- name: two\n-- why\nSELECT 2\n"
    assert vars(load(text, tmp_path)) == {"one": "SELECT 1;", "two": "-- why\nSELECT 2"}


def test_a_name_given_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="twice"):
        load("-- name: one\nSELECT 1\n-- name: one\nSELECT 2\n", tmp_path)
