"""What is measured, and how it is summed up."""

import statistics
from collections.abc import Callable, Iterable
from typing import NamedTuple

Say = Callable[[str], None]


class Plan(NamedTuple):
    """How much is measured. A round lasts `round_s` for slots, and until its events are in for events."""

    campaigns: int
    viewers: int
    rounds: int
    round_s: float
    round_events: int
    connections: int
    seed: int


class Spread(NamedTuple):
    median: float
    least: float
    most: float


def spread_of(values: Iterable[float]) -> Spread:
    ordered = sorted(values)
    return Spread(statistics.median(ordered), ordered[0], ordered[-1])
