"""The check of a start judges what it measures."""

import sys
from typing import Any

import pytest

from loadtest import restart
from loadtest.restart import Started

QUICK = Started(3.7, 6.2, 151, 700)


@pytest.mark.parametrize(
    ("whole", "resumed", "code"),
    [
        (QUICK, QUICK, 0),
        (QUICK._replace(capped_s=84), QUICK, 0),  # without a checkpoint it takes as long as the log is
        (QUICK._replace(uncapped_s=5.1), QUICK, 1),
        (QUICK, QUICK._replace(uncapped_s=5.1), 1),
        (QUICK, QUICK._replace(capped_s=30.1), 1),
    ],
)
def test_a_start_that_is_too_late_fails_the_check(
    monkeypatch: pytest.MonkeyPatch, whole: Started, resumed: Started, code: int
) -> None:
    """Whatever the number of events."""
    starts = iter((whole, resumed))

    async def start(*_: Any) -> Started:
        return next(starts)

    async def nothing(*_: Any) -> None: ...

    monkeypatch.setattr(restart, "_set_up", nothing)
    monkeypatch.setattr(restart, "_plant", nothing)
    monkeypatch.setattr(restart, "_start", start)
    monkeypatch.setattr(sys, "argv", ["restart", "--events", "1000"])
    assert restart.main() == code
