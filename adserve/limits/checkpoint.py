"""A part of a checkpoint of the counters in memory: some viewers, all of their entries in one piece."""

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, pairwise

import numpy as np
from msgspec import MsgspecError, Struct, msgpack

from adserve.domain.time import SECOND_MS
from adserve.limits.entries import (
    CONFIRMED,
    DOUBTED,
    ENTRY_BYTES,
    LIFE_MAX_S,
    MOMENT_SHIFT,
    STATE_BITS,
    STATE_MASK,
    Profile,
)

PART_VIEWERS = 1_000
"""How many viewers are in a part: it takes about a millisecond to make, and some to load."""

_FORMAT = b"\x02"
_COLUMNS = np.dtype([("ticket", "<u8"), ("word", "<u8"), ("profile", "<u4")])

assert _COLUMNS.itemsize == ENTRY_BYTES  # noqa: S101 - a contradiction between two descriptions of an entry


class CheckpointUnreadable(Exception):
    """It was written in another format, or is damaged."""


class _Part(Struct, array_like=True, gc=False):
    """`profiles` go on from those of the parts before; `sizes` are the bytes that each viewer's entries take."""

    profiles: list[Profile]
    viewers: list[bytes]
    sizes: list[int]
    entries: bytes
    hides: dict[bytes, dict[str, int]]


_decode = msgpack.Decoder(_Part).decode


def encode_part(
    profiles: list[Profile], viewers: list[bytes], packed: Sequence[bytes], hides: dict[bytes, dict[str, int]]
) -> bytes:
    return _FORMAT + msgpack.encode(_Part(profiles, viewers, list(map(len, packed)), b"".join(packed), hides))


class Loader:
    """Reads the parts of one checkpoint, in their order. Profiles that no entry has any more are left behind."""

    def __init__(self, number: Callable[[Profile], int], doubted_from_ms: int) -> None:
        """`number` gives a profile its number here."""
        self._number = number
        self._doubted_from_ms = doubted_from_ms
        self._profiles: list[Profile] = []
        self._numbers = np.empty(0, np.int64)

    def viewers(self, part: bytes) -> Iterator[tuple[bytes, bytes, dict[str, int]]]:
        """Each with its entries and hides. Raises CheckpointUnreadable."""
        if part[:1] != _FORMAT:
            raise CheckpointUnreadable(f"a checkpoint of format {part[:1]!r} cannot be read")
        try:
            given = _decode(memoryview(part)[1:])
        except MsgspecError as error:
            raise CheckpointUnreadable(f"a part of the checkpoint is damaged: {error}") from error
        self._profiles += given.profiles
        self._numbers = np.append(self._numbers, np.full(len(given.profiles), -1))
        entries = self._translated(given.entries)
        bounds = pairwise(accumulate(given.sizes, initial=0))
        for key, (start, stop) in zip(given.viewers, bounds, strict=True):
            yield key, entries[start:stop], given.hides.get(key, {})

    def _translated(self, packed: bytes) -> bytes:
        """With the numbers that the profiles have here, and what may not have been stored doubted."""
        columns = np.frombuffer(packed, _COLUMNS).copy()
        profile = columns["profile"]
        for new in np.unique(profile[self._numbers[profile] < 0]).tolist():
            self._numbers[new] = self._number(self._profiles[new])
        columns["profile"] = self._numbers[profile]
        word = columns["word"].astype(np.int64)
        moment_ms, life_s = word >> MOMENT_SHIFT, word >> STATE_BITS & LIFE_MAX_S
        doubtful = np.isin(word & STATE_MASK, (CONFIRMED, DOUBTED)) & (moment_ms >= self._doubted_from_ms)
        doubted = (moment_ms + life_s * SECOND_MS) << MOMENT_SHIFT | DOUBTED
        columns["word"] = np.where(doubtful, doubted, word)
        return columns.tobytes()
