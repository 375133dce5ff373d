"""Types of arguments on the command line."""

from argparse import ArgumentTypeError
from datetime import UTC, date, datetime

ID_MAX = (1 << 63) - 1


def positive(text: str) -> int:
    """A count."""
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"{text!r} is not a number of at least 1")
    return int(text)


def row_id(text: str) -> int:
    """The id of what PostgreSQL has a row of."""
    id_ = positive(text)
    if id_ > ID_MAX:
        raise ArgumentTypeError(f"{text!r} is no id")
    return id_


def day(text: str) -> datetime:
    """The beginning of a day, UTC."""
    try:
        return datetime.combine(date.fromisoformat(text), datetime.min.time(), UTC)
    except ValueError as error:
        raise ArgumentTypeError("is a day such as 2026-01-31") from error
