"""What counters hold of one viewer, for who asks to see it."""

from typing import NamedTuple

STATES = ("reserved", "confirmed", "doubted", "refused")


class Counted(NamedTuple):
    """A ticket's entry: `keys` are what it counts on, `at_ms` is when it was confirmed, or expires."""

    keys: tuple[str, ...]
    state: str
    at_ms: int


class Held(NamedTuple):
    """`hides` are moments by the advertiser's key; `requests` the caller's own ids that would be answered alike."""

    entries: list[Counted]
    hides: dict[str, int]
    requests: list[str]
