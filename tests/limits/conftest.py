"""Every kind of counters must pass the same suite: a kind is a factory here."""

from collections.abc import Callable
from typing import Any

import pytest

from adserve.limits.counters import MemoryCounters

KINDS: dict[str, Callable[[int], Any]] = {"memory": MemoryCounters}


@pytest.fixture(params=sorted(KINDS))
def counters(request: pytest.FixtureRequest) -> Any:
    """Empty counters of epoch 1."""
    return KINDS[request.param](1)
