"""Answers that go into spreadsheets, and which kind of answer a caller asks for."""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from datetime import date, datetime
from typing import Any

CSV = "text/csv"

_FORMULA = re.compile(r"\A(?=[\t\r\n])|(?:\A|(?<=[;\t\r\n]))(?=\s*[=+\-@])")
"""Where one begins: in a cell, or behind what separates cells in a spreadsheet that does not go by commas."""


def cell(value: Any) -> Any:
    """A spreadsheet runs what looks like a formula, and some of our text comes from callers."""
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, date):
        return value.isoformat()
    return _FORMULA.sub("'", value) if isinstance(value, str) else value


def csv_lines(rows: Iterable[Iterable[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(map(cell, row) for row in rows)
    return text.getvalue().encode()


def preferred(accept: str, kinds: Sequence[str]) -> str | None:
    """The first of the kinds that an Accept header names."""
    named = (part.partition(";")[0].strip().lower() for part in accept.split(","))
    return next((kind for kind in named if kind in kinds), None)
