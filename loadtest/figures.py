"""What is measured, and how it is summed up."""

import statistics
from collections.abc import Callable, Iterable
from typing import NamedTuple

Say = Callable[[str], None]


class Sizes(NamedTuple):
    """Campaigns, an ad each, in the three catalogues that are served."""

    small: int
    usual: int
    large: int


class Plan(NamedTuple):
    """How much is measured. A load of slots lasts `round_s`, one of events until they are in."""

    sizes: Sizes
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


def median(values: Iterable[float]) -> float:
    return statistics.median(values)


def spread_of(values: Iterable[float]) -> Spread:
    ordered = sorted(values)
    return Spread(statistics.median(ordered), ordered[0], ordered[-1])
