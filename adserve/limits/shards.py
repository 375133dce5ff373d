"""A part of the viewers whom the counters in memory know."""

from adserve.limits import entries
from adserve.limits.rules import RETENTION_MS


class Shard:
    """The viewers whose pseudonyms begin with one byte: few enough to be looked through, or to be moved when their table
    grows, in no time."""

    __slots__ = ("entries", "hides")

    def __init__(self) -> None:
        self.entries: dict[bytes, bytes] = {}
        self.hides: dict[bytes, dict[str, int]] = {}

    def viewers(self) -> list[bytes]:
        return list(self.entries.keys() | self.hides.keys())

    def keep(self, key: bytes, packed: bytes) -> None:
        if packed:
            self.entries[key] = packed
        else:
            self.entries.pop(key, None)

    def sweep(self, key: bytes, now_ms: int) -> bytes:
        """Answers the entries that stay."""
        packed = entries.pruned(self.entries.get(key, b""), now_ms)
        self.keep(key, packed)
        hides = self.hides.pop(key, {})
        held = {name: at_ms for name, at_ms in hides.items() if now_ms - at_ms < RETENTION_MS}
        if held:
            self.hides[key] = held
        return packed

    def erase(self, key: bytes) -> None:
        self.entries.pop(key, None)
        self.hides.pop(key, None)
