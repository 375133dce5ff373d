"""Commands as a person runs them, each in a process of its own."""

import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import asyncpg

ENDS_WITHIN_S = 1_200
KEPT = "kept: "


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    said: str

    @property
    def database_url(self) -> str:
        """Of the database that it kept."""
        (line,) = (line for line in self.said.splitlines() if line.startswith(KEPT))
        return line.removeprefix(KEPT)


Adserve = Callable[..., Ended]
Kept = Callable[[Ended], Awaitable[asyncpg.Connection]]


def environment(database_url: str, home: Path, **settings: object) -> dict[str, str]:
    """Nothing of the settings that the tests themselves were started with."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("ADSERVE_")}
    ours = {"database_url": database_url, "data_home": home, **settings}
    return others | {f"ADSERVE_{name.upper()}": str(value) for name, value in ours.items()}


def words(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "adserve", *map(str, arguments)]


def run(surroundings: dict[str, str], *arguments: object) -> Ended:
    ended = subprocess.run(
        words(*arguments),
        env=surroundings,
        capture_output=True,
        text=True,
        timeout=ENDS_WITHIN_S,
        check=False,
    )
    return Ended(ended.returncode, ended.stdout, ended.stderr)
