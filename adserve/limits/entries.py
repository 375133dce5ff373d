"""A viewer's entries as bytes: small to keep, and read whole in one call.

An entry is ENTRY_BYTES: the low half of its ticket's id (62 of its 74 random bits: within one viewer no two meet), a
word of its moment, what its ticket still had to live then, and its state, and the number of its profile. A profile
is the keys that an impression of an ad counts on; a table of the counters numbers them.

A reserved entry's moment is when its ticket expires; a doubted one's is the last with which its event may be stored.
"""

from collections.abc import Iterable, Iterator, Mapping
from struct import Struct
from typing import NamedTuple
from uuid import UUID

from adserve.domain.facts import EXPOSURE_WINDOW_MS
from adserve.domain.time import SECOND_MS
from adserve.limits.rules import ALL, GRACE_MS, PACE, RETENTION_MS, Rule

CONFIRMED, RESERVED, DOUBTED, REFUSED = range(4)
STATES = ("confirmed", "reserved", "doubted", "refused")
OPEN = frozenset({RESERVED, DOUBTED})
SHOWN = frozenset({CONFIRMED, DOUBTED})

Profile = tuple[str, ...]
CAMPAIGN = 1
"""Where a profile has the key of its campaign: it is what `keys_counted` answers."""

_ENTRY = Struct("<QQI")
_WITHOUT_TICKET = Struct("<8xQI")
ENTRY_BYTES = _ENTRY.size
_LOW_64 = (1 << 64) - 1

STATE_BITS = 2
LIFE_BITS = 18
STATE_MASK = (1 << STATE_BITS) - 1
LIFE_MAX_S = (1 << LIFE_BITS) - 1
MOMENT_SHIFT = STATE_BITS + LIFE_BITS


class Entry(NamedTuple):
    """One entry by itself. `at_ms` is its moment."""

    state: int
    at_ms: int
    profile: int

    def open(self, now_ms: int) -> bool:
        """Whether an event of the ticket may still set its moment."""
        return self.state in OPEN and now_ms <= self.at_ms + GRACE_MS

    def lapsed(self, now_ms: int) -> bool:
        if self.state == RESERVED:
            return now_ms > self.at_ms + GRACE_MS
        return now_ms - self.at_ms >= RETENTION_MS

    def anywhere(self, at_ms: int, now_ms: int) -> bool:
        """Whether it may yet turn out to lie in any window that contains `at_ms`."""
        return self.open(now_ms) or (self.state == DOUBTED and at_ms <= self.at_ms)


def reserved(ticket: UUID, expires_at_ms: int, profile: int) -> bytes:
    return _ENTRY.pack(ticket.int & _LOW_64, expires_at_ms << MOMENT_SHIFT | RESERVED, profile)


def doubted(ticket: UUID, at_ms: int, expires_at_ms: int, profile: int) -> bytes:
    return _with_life(ticket, DOUBTED, at_ms, expires_at_ms, profile)


def decided(ticket: UUID, counts: bool, at_ms: int, expires_at_ms: int, profile: int) -> bytes:
    """Confirmed or refused at a moment."""
    return _with_life(ticket, CONFIRMED if counts else REFUSED, at_ms, expires_at_ms, profile)


def _with_life(ticket: UUID, state: int, at_ms: int, expires_at_ms: int, profile: int) -> bytes:
    """Should it come to be doubted after a crash, how long the ticket still had to live is known to the second."""
    life_s = min(max(0, -((at_ms - expires_at_ms) // SECOND_MS)), LIFE_MAX_S)
    return _ENTRY.pack(ticket.int & _LOW_64, at_ms << MOMENT_SHIFT | life_s << STATE_BITS | state, profile)


def find(packed: bytes, ticket: UUID) -> int:
    """Where the ticket's entry begins, or -1."""
    wanted = (ticket.int & _LOW_64).to_bytes(8, "little")
    offset = packed.find(wanted)
    while offset > 0 and offset % ENTRY_BYTES:
        offset = packed.find(wanted, offset + 1)
    return offset


def entry_at(packed: bytes, offset: int) -> Entry:
    _, word, profile = _ENTRY.unpack_from(packed, offset)
    return Entry(word & STATE_MASK, word >> MOMENT_SHIFT, profile)


def put(packed: bytes, offset: int, entry: bytes) -> bytes:
    """With that entry in the place of the one there; at -1 it is a new one."""
    if offset < 0:
        return packed + entry
    return packed[:offset] + entry + packed[offset + ENTRY_BYTES :]


def entries_of(packed: bytes) -> Iterator[Entry]:
    for word, profile in _WITHOUT_TICKET.iter_unpack(packed):
        yield Entry(word & STATE_MASK, word >> MOMENT_SHIFT, profile)


def profiles_of(packed: bytes) -> Iterator[int]:
    return (profile for _, profile in _WITHOUT_TICKET.iter_unpack(packed))


def pruned(packed: bytes, now_ms: int) -> bytes:
    """Without what no window can contain any more."""
    reserved_ms, known_ms = now_ms - GRACE_MS, now_ms - RETENTION_MS
    kept = [
        offset
        for offset, (word, _) in zip(
            range(0, len(packed), ENTRY_BYTES), _WITHOUT_TICKET.iter_unpack(packed), strict=True
        )
        if word >> MOMENT_SHIFT > known_ms
        and (word & STATE_MASK != RESERVED or word >> MOMENT_SHIFT >= reserved_ms)
    ]
    if len(kept) * ENTRY_BYTES == len(packed):
        return packed
    return b"".join(packed[offset : offset + ENTRY_BYTES] for offset in kept)


def most_together(moments: list[int], at_ms: int, window_ms: int) -> int:
    """The most entries in any half-open window that contains `at_ms`, itself included."""
    starts = [moment for moment in moments if moment <= at_ms] + [at_ms]
    return max(1 + sum(start <= moment < start + window_ms for moment in moments) for start in starts)


def fits(
    packed: bytes,
    rules: Iterable[tuple[str, int, int]],
    profiles: Mapping[int, Profile],
    at_ms: int,
    now_ms: int,
) -> bool:
    """Whether one more entry at `at_ms` keeps every window that contains it within its rule."""
    others = [entry for entry in entries_of(packed) if entry.state != REFUSED and not entry.lapsed(now_ms)]
    for key, most, window_ms in rules:
        anywhere, near = 0, []
        for entry in others:
            if key == ALL or key in profiles[entry.profile]:
                if entry.anywhere(at_ms, now_ms):
                    anywhere += 1
                elif abs(entry.at_ms - at_ms) < window_ms:
                    near.append(entry.at_ms)
        if anywhere + most_together(near, at_ms, window_ms) > most:
            return False
    return True


class Tally:
    """A viewer's moments at one moment, for one walk. A reservation counts in every window: its moment is now."""

    __slots__ = (
        "_added",
        "_by_key",
        "_profiles",
        "_shown",
        "exposures",
        "hides",
        "lapsed",
        "now_ms",
        "open",
        "packed",
    )

    def __init__(
        self, packed: bytes, hides: Mapping[str, int], profiles: Mapping[int, Profile], now_ms: int
    ) -> None:
        """`exposures` are the confirmed impressions of late by campaign, and of ALL."""
        self.packed = packed
        self.now_ms = now_ms
        self.open = self.lapsed = 0
        self.exposures: dict[str, int] = {}
        self.hides = hides
        self._profiles = profiles
        self._by_key: dict[str, list[int]] | None = None
        self._shown: dict[int, list[int]] = {}
        self._added: dict[str, int] = {}
        if packed:
            self._read()

    def _read(self) -> None:
        now_ms, shown = self.now_ms, self._shown
        lapsed_ms, seen_ms, open_ms = now_ms - RETENTION_MS, now_ms - EXPOSURE_WINDOW_MS, now_ms - GRACE_MS
        seen: dict[int, int] = {}
        for word, profile in _WITHOUT_TICKET.iter_unpack(self.packed):
            state, moment_ms = word & STATE_MASK, word >> MOMENT_SHIFT
            if state == CONFIRMED and moment_ms > seen_ms:
                seen[profile] = seen.get(profile, 0) + 1
            elif state in OPEN and moment_ms >= open_ms:
                self.open += 1
                moment_ms = now_ms
            elif state == RESERVED or moment_ms <= lapsed_ms:
                self.lapsed += 1
                continue
            elif state == REFUSED:
                continue
            moments = shown.get(profile)
            if moments is None:
                shown[profile] = [moment_ms]
            else:
                moments.append(moment_ms)
        if seen:
            self._expose(seen)

    def _expose(self, seen: Mapping[int, int]) -> None:
        exposures = self.exposures
        exposures[ALL] = sum(seen.values())
        for profile, times in seen.items():
            campaign = self._profiles[profile][CAMPAIGN]
            exposures[campaign] = exposures.get(campaign, 0) + times

    def moments(self) -> dict[str, list[int]]:
        """By key, without those of this decision."""
        if self._by_key is None:
            by_key: dict[str, list[int]] = {key: [at_ms] for key, at_ms in self.hides.items()}
            everything: list[int] = []
            for profile, moments in self._shown.items():
                everything += moments
                for key in self._profiles[profile]:
                    others = by_key.get(key)
                    by_key[key] = moments if others is None else others + moments
            if everything:
                by_key[ALL] = by_key[PACE] = everything
            self._by_key = by_key
        return self._by_key

    def add(self, keys: Profile) -> None:
        """One more, of this decision: it counts now, in every window."""
        added = self._added
        added[ALL] = added.get(ALL, 0) + 1
        for key in keys:
            added[key] = added.get(key, 0) + 1

    def count(self, key: str, window_ms: int) -> int:
        after_ms = self.now_ms - window_ms
        return len([moment for moment in self.moments().get(key, ()) if moment > after_ms]) + self._added.get(
            key, 0
        )

    def broken_rule(self, rules: Iterable[Rule]) -> Rule | None:
        by_key, added = self.moments(), self._added
        for rule in rules:
            key = rule.key
            if key in by_key or key in added:
                most = rule.most
                if (
                    len(by_key.get(key, ())) + added.get(key, 0) >= most
                    and self.count(key, rule.window_ms) >= most
                ):
                    return rule
        return None
