"""The prices that stay kept under tickets, as bytes: each waits until its ticket is over, hundreds of thousands at once.

The tickets of a millisecond, by the moment in their ids, are one string, KEPT_BYTES each: the low half of the ticket's id (62 of
its random bits: within a millisecond no two meet), its lease, its price, and when that comes back.
"""

from collections.abc import Iterator
from struct import Struct
from uuid import UUID

_KEPT = Struct("<QQQQ")
_WITHOUT_TICKET = Struct("<8xQQQ")
_TICKET = Struct("<Q")
KEPT_BYTES = _KEPT.size

_MOMENT_SHIFT = 80
_LOW_64 = (1 << 64) - 1

Kept = tuple[int, int, int]
"""The lease, the micros, and the moment (ms) when they come back."""


class KeptTickets:
    def __init__(self) -> None:
        self._by_moment: dict[int, bytes] = {}

    def add(self, ticket: UUID, lease: int, micros: int, back_at_ms: int) -> int:
        """Answers the moment in the ticket's id."""
        number = ticket.int
        moment = number >> _MOMENT_SHIFT
        kept = _KEPT.pack(number & _LOW_64, lease, micros, back_at_ms)
        others = self._by_moment.get(moment)
        self._by_moment[moment] = kept if others is None else others + kept
        return moment

    def take(self, ticket: UUID) -> Kept | None:
        number = ticket.int
        moment = number >> _MOMENT_SHIFT
        packed = self._by_moment.get(moment)
        if packed is None:
            return None
        wanted = _TICKET.pack(number & _LOW_64)
        offset = packed.find(wanted)
        while offset > 0 and offset % KEPT_BYTES:
            offset = packed.find(wanted, offset + 1)
        if offset < 0:
            return None
        if len(packed) == KEPT_BYTES:
            del self._by_moment[moment]
        else:
            self._by_moment[moment] = packed[:offset] + packed[offset + KEPT_BYTES :]
        lease, micros, back_at_ms = _WITHOUT_TICKET.unpack_from(packed, offset)
        return lease, micros, back_at_ms

    def take_back(self, moment: int, now_ms: int) -> list[Kept]:
        """Of a moment, what comes back now."""
        packed = self._by_moment.pop(moment, b"")
        back: list[Kept] = []
        staying = b""
        for nth, (lease, micros, back_at_ms) in enumerate(_WITHOUT_TICKET.iter_unpack(packed)):
            if back_at_ms <= now_ms:
                back.append((lease, micros, back_at_ms))
            else:
                staying += packed[nth * KEPT_BYTES : (nth + 1) * KEPT_BYTES]
        if staying:
            self._by_moment[moment] = staying
        return back

    def move(self, moment: int, to: "KeptTickets") -> Iterator[Kept]:
        """All of a moment."""
        packed = self._by_moment.pop(moment, b"")
        if packed:
            to._by_moment[moment] = to._by_moment.get(moment, b"") + packed
        return _WITHOUT_TICKET.iter_unpack(packed)
