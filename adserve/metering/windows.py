"""What is remembered of keys for a while, and of no more of them than a bound: the oldest are forgotten first."""

import struct
from typing import Generic, TypeVar

from adserve.domain.time import DAY_MS, SECOND_MS
from adserve.domain.traffic import Rate

KEYS_MAX = 50_000
"""Of one generation; there are two."""
MARK_BYTES = 8
SPAN_MAX_MS = DAY_MS
"""The longest window that a rate may have."""

_ENTRY = struct.Struct(f">{MARK_BYTES}sq")

Value = TypeVar("Value")


class Memory(Generic[Value]):
    """Two generations of keys: when the young one is full or older than `span_ms`, it becomes the old one."""

    def __init__(self, keys_max: int = KEYS_MAX) -> None:
        self._keys_max = keys_max
        self._young: dict[bytes, Value] = {}
        self._old: dict[bytes, Value] = {}
        self._since_ms = 0

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def get(self, key: bytes) -> Value | None:
        value = self._young.get(key)
        return self._old.get(key) if value is None else value

    def forget(self, key: bytes) -> None:
        self._young.pop(key, None)
        self._old.pop(key, None)

    def sweep(self, now_ms: int) -> None:
        """Forgets what is older than any span may be."""
        if now_ms - self._since_ms > 2 * SPAN_MAX_MS:
            self._old, self._young = {}, {}

    def put(self, key: bytes, value: Value, now_ms: int, span_ms: int) -> None:
        if len(self._young) >= self._keys_max or now_ms - self._since_ms > span_ms:
            self._old, self._young, self._since_ms = self._young, {}, now_ms
        self._young[key] = value


class Window:
    """Which marks of a key go beyond a rate: those that come within its window of the `count`-th before them.

    A mark that comes again is not counted again, and gets the same answer. An entry is 16 bytes: the mark, and twice its
    moment plus one when it went beyond. Those count too: a flood stays one until it is over.
    """

    def __init__(self, keys_max: int = KEYS_MAX) -> None:
        self._past: Memory[bytes] = Memory(keys_max)

    def exceeded(self, key: bytes, mark: bytes, rate: Rate, at_ms: int, now_ms: int) -> bool:
        """`at_ms` is when it happened, `now_ms` when we hear of it."""
        window_ms, kept = rate.window_s * SECOND_MS, rate.count * _ENTRY.size
        past = self._past.get(key)
        if past is None:
            self._past.put(key, _ENTRY.pack(mark, at_ms << 1), now_ms, window_ms)
            return False
        place = past.find(mark)
        if place >= 0 and place % _ENTRY.size == 0:
            told = _moment(past, place)
            if at_ms - (told >> 1) < window_ms:
                return bool(told & 1)
        beyond = len(past) >= kept and 0 <= at_ms - (_moment(past, len(past) - kept) >> 1) < window_ms
        entry = _ENTRY.pack(mark, at_ms << 1 | beyond)
        self._past.put(key, (past + entry)[-kept:], now_ms, window_ms)
        return beyond

    def forget(self, key: bytes) -> None:
        self._past.forget(key)

    def sweep(self, now_ms: int) -> None:
        self._past.sweep(now_ms)


def _moment(past: bytes, place: int) -> int:
    moment: int = _ENTRY.unpack_from(past, place)[1]
    return moment
