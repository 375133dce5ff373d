"""How keys and viewers are told to the functions of lua/counters.lua, and the value of a viewer that is put there whole."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import lru_cache
from struct import Struct
from typing import NamedTuple
from uuid import UUID

from msgspec import Raw, msgpack

from adserve.limits.counters import ENTRIES_MAX
from adserve.limits.rules import hide_key, keys_counted

KEYS_CACHED_MAX = 65_536

FORMAT = b"\1"
TICKET_BYTES, ENTRY_BYTES, EVENT_BYTES = 8, 14, 38
MOMENT_BITS = 46
HIDDEN, CONFIRMED, DOUBTED, REFUSED = 0, 1, 2, 3

_count = Struct(">H").pack
_whose = Struct(">qqq")
_event = Struct(">32s6s")
"""Whose it is and the ticket's, and a moment with its state: of those that count the least is the first."""
_LEAST_CONFIRMED = bytes((CONFIRMED << MOMENT_BITS - 40,))
_NEVER = b"\xff"

_NUMBERED = frozenset("acvh")

encode = msgpack.Encoder().encode


class Shown(NamedTuple):
    """What the event log has of a viewer and of ads with the same labels: events as `event_of` packs them, in any order, of one ticket
    perhaps more than one; and when the last of them happened."""

    viewer: bytes
    labels: tuple[str, ...]
    events: bytes
    last_ms: int

    def only(self, remembered: Callable[[int], bool]) -> "Shown":
        """Without what happened at moments that are not to be remembered."""
        events = (self.events[at : at + EVENT_BYTES] for at in range(0, len(self.events), EVENT_BYTES))
        return self._replace(events=b"".join(event for event in events if remembered(_moment_ms(event))))


def event_of(ad: int, campaign: int, advertiser: int, ticket: UUID, state: int, at_ms: int) -> bytes:
    """`state` is CONFIRMED, DOUBTED, REFUSED, or HIDDEN where the ticket's advertiser was hidden."""
    moment = (state << MOMENT_BITS | at_ms).to_bytes(6, "big")
    return _whose.pack(ad, campaign, advertiser) + ticket.bytes[-TICKET_BYTES:] + moment


def value_of(shown: Iterable[Shown]) -> bytes:
    """A viewer's value. Of a ticket's events the first decides that counts, or the first."""
    hides: dict[bytes, bytes] = {}
    happened: dict[tuple[str, ...], bytes] = {}
    for one in shown:
        happened[one.labels] = happened.get(one.labels, b"") + one.events
    groups: list[bytes] = []
    for labels, events in happened.items():
        firsts: dict[bytes, bytes] = {}
        for of, moment in _event.iter_unpack(events):
            if moment < _LEAST_CONFIRMED:
                name = wire_key(hide_key(_whose.unpack(of[: _whose.size])[-1]))
                hides[name] = max(moment, hides.get(name, moment))
            elif moment < firsts.get(of, _NEVER):
                firsts[of] = moment
        if len(firsts) > ENTRIES_MAX:  # and until the newest of them lapse there is no room for more
            newest = sorted(firsts.items(), key=lambda first: _moment_ms(first[1]))[-ENTRIES_MAX:]
            firsts = dict(newest)
        entries: defaultdict[bytes, bytes] = defaultdict(bytes)
        for of, moment in firsts.items():
            entries[of[: _whose.size]] += of[_whose.size :] + moment
        for whose, those in entries.items():
            groups += (_profile(whose, labels), _count(len(those) // ENTRY_BYTES), those)
    told_hides = (bytes((len(name),)) + name + moment for name, moment in hides.items())
    return b"".join((FORMAT, _count(len(hides)), *told_hides, *groups))


def _moment_ms(packed: bytes) -> int:
    """Of an event or an entry, which end alike."""
    return int.from_bytes(packed[-6:], "big") & ((1 << MOMENT_BITS) - 1)


@lru_cache(KEYS_CACHED_MAX)
def _profile(whose: bytes, labels: tuple[str, ...]) -> bytes:
    ad, campaign, advertiser = _whose.unpack(whose)
    return wire_keys(keys_counted(ad, campaign, advertiser, labels))


def raw(data: bytes) -> Raw:
    """As a msgpack string, which Redis's Lua reads; the type for bytes it does not know."""
    size = len(data)
    if size < 32:
        head = bytes([0xA0 | size])
    elif size < 2**16:
        head = b"\xda" + size.to_bytes(2, "big")
    else:
        head = b"\xdb" + size.to_bytes(4, "big")
    return Raw(head + data)


@lru_cache(KEYS_CACHED_MAX)
def wire_key(key: str) -> bytes:
    """A key's kind and, for those of a number, the number in as few bytes as hold it."""
    if key[0] in _NUMBERED:
        number = int(key[1:])
        return key[:1].encode() + number.to_bytes((number.bit_length() + 7) // 8, "big")
    return key.encode()


@lru_cache(KEYS_CACHED_MAX)
def key_of(wire: bytes) -> str:
    kind = chr(wire[0])
    return f"{kind}{int.from_bytes(wire[1:], 'big')}" if kind in _NUMBERED else wire.decode()


@lru_cache(KEYS_CACHED_MAX)
def wire_keys(keys: tuple[str, ...]) -> bytes:
    """A msgpack array of strings, which these keys are for Lua, if not for Unicode."""
    return encode([raw(wire_key(key)) for key in keys])
