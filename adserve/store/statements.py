"""Named SQL statements: a file a subject, a block a statement, opened by a line `-- name: take_lease`."""

import re
from importlib.resources import files
from types import SimpleNamespace

_NAME = re.compile(r"^-- name: (\w+)[ \t]*\n", re.MULTILINE)


def load(subject: str) -> SimpleNamespace:
    """The statements of sql/<subject>.sql as attributes; what stands before the first name is prose."""
    text = files("adserve.store").joinpath("sql", f"{subject}.sql").read_text(encoding="utf-8")
    _, *parts = _NAME.split(text)
    names, bodies = parts[::2], parts[1::2]
    if len(set(names)) < len(names):
        raise ValueError(f"sql/{subject}.sql names a statement twice")
    return SimpleNamespace(**dict(zip(names, map(str.strip, bodies), strict=True)))
