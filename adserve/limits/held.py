"""What counters hold of one viewer, for who asks to see it."""

from msgspec import Struct


class Counted(Struct, frozen=True):
    """A ticket's entry: `keys` are what it counts on, `at_ms` is when it was confirmed, or expires."""

    keys: tuple[str, ...]
    state: str
    at_ms: int


class Held(Struct, frozen=True):
    """`hides` are moments by the advertiser's key; `requests` the caller's own ids that would be answered alike."""

    entries: list[Counted]
    hides: dict[str, int]
    requests: list[str]
