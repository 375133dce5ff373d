"""The frequency counters of one process, in memory: the arbiter of every cap, separation, minimum time and hide.

An entry is one ticket of one viewer. Reserved, it counts in every window until its ticket has expired and a grace
has passed; confirmed, at its moment; refused, nowhere (it is kept so that a later event of the ticket gets the
same answer). Doubted, it was confirmed, and whether its event was stored is not known: as it may be sent again, it
counts like a reservation, and after that at the last moment that it may have been stored with. Nothing here awaits,
so every method is atomic.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from msgspec import Struct, msgpack

from adserve.domain.facts import EXPOSURE_WINDOW_MS
from adserve.domain.tickets import Ticket
from adserve.limits.rules import ALL, PACE, RETENTION_MS, Rule, hide_key, keys_counted

GRACE_MS = 60_000
"""How much longer than its ticket a reservation counts: an event received in time may be confirmed later."""

OPEN_MAX = 500
"""How many tickets of a viewer may be open at once: no person is asked for so often."""
LAPSED_MAX = 50
"""How many entries of a viewer may have lapsed before the next decision forgets them."""

REQUESTS_MAX = 50_000
"""How many answered requests are remembered for a retry; the oldest are forgotten first."""

RESERVED, CONFIRMED, DOUBTED, REFUSED = "reserved", "confirmed", "doubted", "refused"
_OPEN = frozenset({RESERVED, DOUBTED})

SWEPT_AT_ONCE = 1_000

_PART_ENTRIES = 2_000
_FORMAT = b"\x01"


class CountersAway(Exception):
    """The counts cannot be known now: the shared counters cannot be reached, or are being filled. What has no rule
    but hides may be shown meanwhile."""


class Candidate(NamedTuple):
    """What the counters need to know of a ranked ad."""

    advertiser: int
    tier: int
    keys: tuple[str, ...]
    rules: tuple[Rule, ...]


class Reservation(Struct, frozen=True, gc=False):
    """A ranked list and the tickets that wait for the open positions, in feed order.

    When it is to be `whole`, nothing is reserved unless there is an ad for every ticket and a runner-up. `memo` is
    given back with the grant when the same `request` of the viewer comes again.
    """

    decision: UUID
    candidates: Sequence[Candidate]
    tickets: Sequence[UUID]
    expires_at_ms: int
    whole: bool = False
    request: str | None = None
    digest: bytes = b""
    memo: Any = None


class Grant(Struct, frozen=True, gc=False):
    """Indexes into the ranked list: `reserved` in position order, `runner_up` the next admissible ad of another
    advertiser in the last reserved one's tier, `capped` those that a rule forbade, with that rule."""

    reserved: tuple[int, ...]
    runner_up: int | None
    capped: tuple[tuple[int, Rule], ...]


class Earlier(Struct, frozen=True, gc=False):
    """The answer that this viewer's `request` got before."""

    digest: bytes
    grant: Grant
    memo: Any


class Past(Struct, frozen=True, gc=False):
    """What a decision may know of a viewer: confirmed impressions of late by key, and an earlier answer to its
    request."""

    exposures: dict[str, int]
    earlier: Earlier | None


class _Entry(Struct, array_like=True, gc=False):
    ticket: UUID
    decision: UUID
    state: str
    at_ms: int
    expires_at_ms: int
    keys: tuple[str, ...]

    def open(self, now_ms: int) -> bool:
        """Whether an event of the ticket may still set its moment."""
        return self.state in _OPEN and now_ms <= self.expires_at_ms + GRACE_MS

    def doubt(self) -> None:
        self.state, self.at_ms = DOUBTED, self.expires_at_ms

    def lapsed(self, now_ms: int) -> bool:
        if self.state == RESERVED:
            return not self.open(now_ms)
        return now_ms - self.at_ms >= RETENTION_MS


class _Viewer(Struct, array_like=True):
    """The entries by ticket, and by key the moment of the newest hide."""

    entries: dict[UUID, _Entry]
    hides: dict[str, int]

    def prune(self, now_ms: int) -> None:
        for ticket in [ticket for ticket, entry in self.entries.items() if entry.lapsed(now_ms)]:
            del self.entries[ticket]
        for key in [key for key, at_ms in self.hides.items() if now_ms - at_ms >= RETENTION_MS]:
            del self.hides[key]


class MemoryCounters:
    """Caps for one process. Replicas that share viewers need counters that they share too."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self._viewers: dict[bytes, _Viewer] = {}
        self._unswept: list[bytes] = []
        self._requests: dict[tuple[bytes, str], tuple[int, Earlier]] = {}

    async def recall(self, viewer: bytes, request: str | None, now_ms: int, _wait_ms: int = 0) -> Past:
        earlier = None
        if request is not None:
            remembered = self._requests.get((viewer, request))
            if remembered is not None and remembered[0] >= now_ms:
                earlier = remembered[1]
        known = self._viewers.get(viewer)
        if known is None:
            return Past({}, earlier)
        exposures: dict[str, int] = {}
        for entry in known.entries.values():
            if entry.state == CONFIRMED and now_ms - entry.at_ms < EXPOSURE_WINDOW_MS:
                for key in (ALL, *entry.keys):
                    exposures[key] = exposures.get(key, 0) + 1
        return Past(exposures, earlier)

    async def reserve(self, viewer: bytes, ask: Reservation, now_ms: int, _wait_ms: int = 0) -> Grant:
        """Walks the ranked list once and reserves the first admissible ad for each ticket."""
        known = self._viewers.get(viewer)
        tally = _tidy_tally(known, now_ms)
        if tally.open + len(ask.tickets) > OPEN_MAX:
            return Grant((), None, ())
        reserved: list[int] = []
        capped: list[tuple[int, Rule]] = []
        runner_up = None
        for index, candidate in enumerate(ask.candidates):
            if len(reserved) == len(ask.tickets) and not _competes(candidate, ask.candidates[reserved[-1]]):
                continue
            broken = tally.broken_rule(candidate.rules)
            if broken is not None:
                capped.append((index, broken))
            elif len(reserved) < len(ask.tickets):
                tally.add(candidate.keys)
                reserved.append(index)
            else:
                runner_up = index
                break
        if ask.whole and (runner_up is None or len(reserved) < len(ask.tickets)):
            return Grant((), None, tuple(capped))
        grant = Grant(tuple(reserved), runner_up, tuple(capped))
        if reserved:
            if known is None:
                known = self._viewers[viewer] = _Viewer({}, {})
            for index, ticket in zip(reserved, ask.tickets, strict=False):
                keys = ask.candidates[index].keys
                known.entries[ticket] = _Entry(
                    ticket, ask.decision, RESERVED, now_ms, ask.expires_at_ms, keys
                )
            if ask.request is not None:
                earlier = Earlier(ask.digest, grant, ask.memo)
                self._requests[viewer, ask.request] = (ask.expires_at_ms, earlier)
                if len(self._requests) > REQUESTS_MAX:
                    del self._requests[next(iter(self._requests))]
        return grant

    async def usage(self, viewer: bytes, keys_windows: Sequence[tuple[str, int]], now_ms: int) -> list[int]:
        """How many entries each (key, window_ms) holds now, reservations included."""
        tally = _Tally(self._viewers.get(viewer), now_ms)
        return [tally.count(key, window_ms) for key, window_ms in keys_windows]

    async def confirm(self, ticket: Ticket, at_ms: int, now_ms: int) -> bool:
        """Whether the impression received at `at_ms` counts. The ticket's first confirmation decides; later ones
        repeat it.

        An open entry moves to `at_ms` unconditionally: it was counted all along. A ticket that is not known here
        (released, lapsed, or from before a crash) must fit every window that contains `at_ms`.
        """
        known = self._viewers.setdefault(ticket.viewer_cap, _Viewer({}, {}))
        entry = known.entries.get(ticket.ticket)
        if entry is None or (entry.state == RESERVED and entry.lapsed(now_ms)):
            entry = _entry_of(ticket, at_ms)
            fits = _fits_around(known, entry, [Rule(*rule) for rule in ticket.rules], now_ms)
            entry.state = CONFIRMED if fits else REFUSED
            known.entries[ticket.ticket] = entry
        elif entry.open(now_ms):
            entry.state, entry.at_ms = CONFIRMED, at_ms
        return entry.state != REFUSED

    async def doubt(self, ticket: Ticket) -> None:
        """Whether the event that confirmed the ticket was stored is not known."""
        known = self._viewers.get(ticket.viewer_cap)
        entry = known.entries.get(ticket.ticket) if known else None
        if entry is not None and entry.state == CONFIRMED:
            entry.doubt()

    async def release(self, ticket: Ticket, now_ms: int) -> bool:
        """Gives back a reservation; false when there is none (already shown, released or lapsed)."""
        known = self._viewers.get(ticket.viewer_cap)
        entry = known.entries.get(ticket.ticket) if known else None
        if known is None or entry is None or entry.state != RESERVED or entry.lapsed(now_ms):
            return False
        del known.entries[ticket.ticket]
        return True

    async def hide(self, ticket: Ticket, at_ms: int) -> None:
        """The viewer does not want this advertiser: its ads are withheld for as long as entries are kept."""
        self.restore_hide(ticket.viewer_cap, ticket.advertiser, at_ms)

    def sweep(self, now_ms: int) -> None:
        """Forgets what no window can contain any more, of some viewers a call, so that no request waits for all."""
        if not self._unswept:
            self._unswept = list(self._viewers)
        for viewer in self._unswept[-SWEPT_AT_ONCE:]:
            known = self._viewers[viewer]
            known.prune(now_ms)
            if not known.entries and not known.hides:
                del self._viewers[viewer]
        del self._unswept[-SWEPT_AT_ONCE:]
        for request in [key for key, (until_ms, _) in self._requests.items() if until_ms < now_ms]:
            del self._requests[request]

    def restore(
        self,
        viewer: bytes,
        ticket: UUID,
        counted: bool,
        at_ms: int,
        expires_at_ms: int,
        keys: tuple[str, ...],
    ) -> None:
        """Puts back an impression or view that the event log holds; the log's word is final."""
        known = self._viewers.setdefault(viewer, _Viewer({}, {}))
        entry = known.entries.get(ticket)
        if entry is None or entry.state in _OPEN:
            state = CONFIRMED if counted else REFUSED
            known.entries[ticket] = _Entry(ticket, ticket, state, at_ms, expires_at_ms, keys)

    def restore_hide(self, viewer: bytes, advertiser: int, at_ms: int) -> None:
        known = self._viewers.setdefault(viewer, _Viewer({}, {}))
        key = hide_key(advertiser)
        known.hides[key] = max(at_ms, known.hides.get(key, at_ms))

    def dump(self) -> Iterator[bytes]:
        """The entries and hides as versioned parts of bounded size, for a checkpoint.

        A part is of the moment when it is asked for, and takes some milliseconds to make: requests may come between.
        """
        part: list[tuple[bytes, list[_Entry], dict[str, int]]] = []
        size = 0
        for viewer in list(self._viewers):
            known = self._viewers.get(viewer)
            if known is not None:
                part.append((viewer, list(known.entries.values()), known.hides))
                size += 1 + len(known.entries)
            if size >= _PART_ENTRIES:
                yield _FORMAT + msgpack.encode(part)
                part, size = [], 0
        if part:
            yield _FORMAT + msgpack.encode(part)

    def load(self, parts: Iterable[bytes], doubted_from_ms: int) -> None:
        """Takes a checkpoint's parts. What was confirmed from that moment on may not have been stored before a crash:
        it is for `restore` to say."""
        for part in parts:
            if part[:1] != _FORMAT:
                raise ValueError(f"a checkpoint of format {part[:1]!r} cannot be read")
            for viewer, entries, hides in _DECODER.decode(part[1:]):
                for entry in entries:
                    if entry.state == CONFIRMED and entry.at_ms >= doubted_from_ms:
                        entry.doubt()
                self._viewers[viewer] = _Viewer({entry.ticket: entry for entry in entries}, hides)

    def __len__(self) -> int:
        return len(self._viewers)


_DECODER = msgpack.Decoder(list[tuple[bytes, list[_Entry], dict[str, int]]])


class _Tally:
    """A viewer's moments by key, for one walk. A reservation counts in every window: its moment is now."""

    def __init__(self, known: _Viewer | None, now_ms: int) -> None:
        self._now_ms = now_ms
        self._moments: dict[str, list[int]] = {}
        self.open = self.lapsed = 0
        if known is None:
            return
        for entry in known.entries.values():
            if entry.lapsed(now_ms):
                self.lapsed += 1
            elif entry.open(now_ms):
                self.open += 1
                self._count((ALL, PACE, *entry.keys), now_ms)
            elif entry.state != REFUSED:
                self._count((ALL, PACE, *entry.keys), entry.at_ms)
        for key, at_ms in known.hides.items():
            self._count((key,), at_ms)

    def add(self, keys: Iterable[str]) -> None:
        self._count((ALL, *keys), self._now_ms)

    def _count(self, keys: Iterable[str], at_ms: int) -> None:
        for key in keys:
            self._moments.setdefault(key, []).append(at_ms)

    def count(self, key: str, window_ms: int) -> int:
        after_ms = self._now_ms - window_ms
        return sum(moment > after_ms for moment in self._moments.get(key, ()))

    def broken_rule(self, rules: Iterable[Rule]) -> Rule | None:
        for rule in rules:
            if rule.key in self._moments and self.count(rule.key, rule.window_ms) >= rule.most:
                return rule
        return None


def _tidy_tally(known: _Viewer | None, now_ms: int) -> _Tally:
    tally = _Tally(known, now_ms)
    if known is not None and tally.lapsed > LAPSED_MAX:
        known.prune(now_ms)
    return tally


def _entry_of(ticket: Ticket, at_ms: int) -> _Entry:
    keys = keys_counted(ticket.ad, ticket.campaign, ticket.advertiser, ticket.labels)
    return _Entry(ticket.ticket, ticket.decision, RESERVED, at_ms, ticket.expires_at_ms, keys)


def _competes(candidate: Candidate, last: Candidate) -> bool:
    return candidate.tier == last.tier and candidate.advertiser != last.advertiser


def _fits_around(known: _Viewer, new: _Entry, rules: Iterable[Rule], now_ms: int) -> bool:
    """Whether one more entry at `new.at_ms` keeps every window that contains it within its rule."""
    others = [
        entry for entry in known.entries.values() if entry.state != REFUSED and not entry.lapsed(now_ms)
    ]
    for rule in rules:
        counted = [entry for entry in others if rule.key == ALL or rule.key in entry.keys]
        open_ = sum(entry.open(now_ms) for entry in counted)
        near = sorted(
            entry.at_ms
            for entry in counted
            if not entry.open(now_ms) and abs(entry.at_ms - new.at_ms) < rule.window_ms
        )
        if open_ + _most_together(near, new.at_ms, rule.window_ms) > rule.most:
            return False
    return True


def _most_together(moments: list[int], at_ms: int, window_ms: int) -> int:
    """The most entries in any half-open window that contains `at_ms`, itself included."""
    starts = [moment for moment in moments if moment <= at_ms] + [at_ms]
    return max(1 + sum(start <= moment < start + window_ms for moment in moments) for start in starts)
