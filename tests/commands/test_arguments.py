import argparse
from datetime import UTC, datetime

import pytest

from adserve.commands.arguments import day, positive, row_id


def test_a_count_is_a_number_of_at_least_one() -> None:
    assert positive("12") == 12
    for text in ("0", "-1", "many", ""):
        with pytest.raises(argparse.ArgumentTypeError):
            positive(text)


def test_an_id_is_one_that_a_row_can_have() -> None:
    assert row_id(str((1 << 63) - 1)) == (1 << 63) - 1
    for text in ("0", "x", str(1 << 63)):
        with pytest.raises(argparse.ArgumentTypeError):
            row_id(text)


def test_a_day_is_its_beginning_in_utc() -> None:
    assert day("2026-01-31") == datetime(2026, 1, 31, tzinfo=UTC)
    for text in ("x", "2026-02-30", ""):
        with pytest.raises(argparse.ArgumentTypeError, match="2026-01-31"):
            day(text)
