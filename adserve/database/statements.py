"""Reads files of named SQL statements: `-- name: xyz` opens a statement, which lasts until the next name."""

import re
from pathlib import Path

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


def load(path: Path) -> dict[str, str]:
    """The statements of a file by name, without their closing semicolons."""
    _, *parts = _NAME.split(path.read_text(encoding="utf-8"))
    names, bodies = parts[::2], parts[1::2]
    if len(set(names)) < len(names):
        raise ValueError(f"{path}: a statement's name is used twice")
    return {name: body.strip().removesuffix(";") for name, body in zip(names, bodies, strict=True)}
