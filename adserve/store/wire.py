"""How keys and viewers are told to the functions of lua/counters.lua, and the value of a viewer that is put there whole."""

from collections.abc import Callable, Iterable
from functools import lru_cache
from struct import Struct
from typing import NamedTuple
from uuid import UUID

from msgspec import Raw, msgpack

from adserve.limits.rules import hide_key, keys_counted

KEYS_CACHED_MAX = 65_536

FORMAT = b"\1"
TICKET_BYTES, ENTRY_BYTES = 8, 14
MOMENT_BITS = 46
CONFIRMED, REFUSED = 1, 3

_NUMBERED = frozenset("acvh")
_count = Struct(">H").pack

encode = msgpack.Encoder().encode


class Shown(NamedTuple):
    """What the event log has of a viewer and an ad: `entries` of tickets, packed as they are kept, in any order, one ticket perhaps
    more than once; when its advertiser was hidden last, if ever; and when anything of this happened last."""

    viewer: bytes
    ad: int
    campaign: int
    advertiser: int
    labels: tuple[str, ...]
    entries: bytes
    hidden_at_ms: int | None
    last_ms: int

    def only(self, remembered: Callable[[int], bool]) -> "Shown":
        """Without what happened at moments that are not to be remembered."""
        hidden_at_ms = self.hidden_at_ms
        return self._replace(
            entries=b"".join(entry for entry in _each(self.entries) if remembered(_moment_ms(entry))),
            hidden_at_ms=None if hidden_at_ms is None or not remembered(hidden_at_ms) else hidden_at_ms,
        )


def entry_of(ticket: UUID, counted: bool, at_ms: int) -> bytes:
    state = CONFIRMED if counted else REFUSED
    return ticket.bytes[-TICKET_BYTES:] + (state << MOMENT_BITS | at_ms).to_bytes(6, "big")


def value_of(shown: Iterable[Shown]) -> bytes:
    """A viewer's value. Of a ticket's events the first decides that counts, or the first."""
    hides: dict[bytes, int] = {}
    groups: dict[bytes, bytes] = {}
    for one in shown:
        if one.hidden_at_ms is not None:
            name = wire_key(hide_key(one.advertiser))
            hides[name] = max(one.hidden_at_ms, hides.get(name, 0))
        if one.entries:
            profile = _profile(one.ad, one.campaign, one.advertiser, one.labels)
            groups[profile] = groups.get(profile, b"") + one.entries
    parts = [FORMAT, _count(len(hides))]
    for name, at_ms in hides.items():
        parts += (bytes((len(name),)), name, at_ms.to_bytes(6, "big"))
    for profile, entries in groups.items():
        firsts = _first_of_each_ticket(entries)
        parts += (profile, _count(len(firsts) // ENTRY_BYTES), firsts)
    return b"".join(parts)


def _first_of_each_ticket(entries: bytes) -> bytes:
    tickets = {entries[at : at + TICKET_BYTES] for at in range(0, len(entries), ENTRY_BYTES)}
    if len(tickets) * ENTRY_BYTES == len(entries):
        return entries
    refused_then_latest_first = sorted(_each(entries), key=lambda entry: entry[TICKET_BYTES:], reverse=True)
    return b"".join({entry[:TICKET_BYTES]: entry for entry in refused_then_latest_first}.values())


def _each(entries: bytes) -> Iterable[bytes]:
    return (entries[at : at + ENTRY_BYTES] for at in range(0, len(entries), ENTRY_BYTES))


def _moment_ms(entry: bytes) -> int:
    return int.from_bytes(entry[TICKET_BYTES:], "big") & ((1 << MOMENT_BITS) - 1)


@lru_cache(KEYS_CACHED_MAX)
def _profile(ad: int, campaign: int, advertiser: int, labels: tuple[str, ...]) -> bytes:
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
