"""Compares the books with what the events say they must be."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

Key = tuple[str | int | None, ...]
Sums = Mapping[Key, int]


class Check(NamedTuple):
    """Something that stands in the books and can be derived a second way. A key that one side lacks is 0 there."""

    name: str
    derived: Sums
    booked: Sums


class Difference(NamedTuple):
    check: str
    key: Key
    derived: int
    booked: int

    def __str__(self) -> str:
        subject = " ".join("-" if part is None else str(part) for part in self.key)
        return f"{self.check} [{subject}]: derived {self.derived}, booked {self.booked}, off by {self.booked - self.derived}"


class Reconciliation(NamedTuple):
    """`compared` counts the figures; `exact` is true when no two differ."""

    compared: int
    events: int
    billed_micros: Mapping[str, int]
    differences: tuple[Difference, ...]

    @property
    def exact(self) -> bool:
        return not self.differences


def reconcile(checks: list[Check], events: int, billed_micros: Mapping[str, int]) -> Reconciliation:
    """`events` and `billed_micros` (by currency) say how much was looked at."""
    compared = sum(len(check.derived.keys() | check.booked.keys()) for check in checks)
    differences = tuple(difference for check in checks for difference in _differences(check))
    return Reconciliation(compared, events, billed_micros, differences)


def _differences(check: Check) -> Iterator[Difference]:
    for key in sorted(check.derived.keys() | check.booked.keys(), key=str):
        derived, booked = check.derived.get(key, 0), check.booked.get(key, 0)
        if derived != booked:
            yield Difference(check.name, key, derived, booked)
