"""This room's SQL, by subject."""

from pathlib import Path
from types import SimpleNamespace

from adserve.database import statements


def load(subject: str) -> SimpleNamespace:
    """The statements of sql/<subject>.sql as attributes."""
    return statements.load(Path(__file__).parent / "sql" / f"{subject}.sql")
