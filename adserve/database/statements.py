"""Named SQL statements: a file a subject, a block a statement, opened by a line `-- name: take`."""

import re
from pathlib import Path
from types import SimpleNamespace

_NAME = re.compile(r"^-- name: (\w+)[ \t]*\n", re.MULTILINE)


def load(path: Path) -> SimpleNamespace:
    """The statements of a file as attributes; what stands before the first name is prose."""
    _, *parts = _NAME.split(path.read_text(encoding="utf-8"))
    names, bodies = parts[::2], parts[1::2]
    if len(set(names)) < len(names):
        raise ValueError(f"{path} names a statement twice")
    return SimpleNamespace(**dict(zip(names, map(str.strip, bodies), strict=True)))
