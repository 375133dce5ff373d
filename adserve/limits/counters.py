"""The frequency counters of one process, in memory: the arbiter of every cap, separation, minimum time and hide.

An entry is one ticket of one viewer. Reserved, it counts in every window until its ticket has expired and a grace
has passed; confirmed, at its moment; refused, nowhere (it is kept so that a later event of the ticket gets the
same answer). Doubted, it was confirmed, and with which moment its event is stored is not known, if it is: as it may be sent
again, it counts like a reservation, and after that at the last moment that it may be stored with, to what comes later,
and at every earlier one to what was received before that. Nothing here awaits, so every method is atomic.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterable, Iterator, Mapping, Sequence
from itertools import islice
from types import MappingProxyType
from typing import Any
from uuid import UUID

from msgspec import Struct

from adserve.domain.ads import Tier
from adserve.domain.tickets import Ticket
from adserve.limits import entries
from adserve.limits.checkpoint import PART_VIEWERS, Loader, encode_part
from adserve.limits.entries import DOUBTED, REFUSED, RESERVED, Entry, Profile, Tally
from adserve.limits.erased import Erased
from adserve.limits.held import Counted, Held
from adserve.limits.memos import AS_THEY_ARE, Memos
from adserve.limits.profiles import Profiles
from adserve.limits.reservations import Candidate, Earlier, Grant, Past, PastDiffers, Reservation
from adserve.limits.rules import Rule, hide_key, keys_counted
from adserve.limits.shards import Shard

OPEN_MAX = 500
"""How many tickets of a viewer may be open at once: no person is asked for so often."""
ENTRIES_MAX = 10_000
"""How many entries a viewer may have: 50 for each day that they are kept."""
_MUCH_BYTES = (ENTRIES_MAX - OPEN_MAX) * entries.ENTRY_BYTES
"""Of a viewer whose entries take no more, they need not be looked at to know that there is room."""
LAPSED_MAX = 8
"""How many entries of a viewer may have lapsed before the next decision forgets them."""

REQUESTS_MAX = 50_000
"""How many answered requests are remembered for a retry; the oldest are forgotten first."""

FILLING = "the counters are being filled"
ERASING = "the viewer is being erased"

SWEPT_AT_ONCE = 1_000

KEY_BYTES = 15
"""Of a pseudonym's 16: as a key they take 48 bytes of memory, one more would take 64."""


class CountersAway(Exception):
    """The counts cannot be known now: the shared counters cannot be reached, or are being filled. What has no rule
    but hides may be shown meanwhile."""


class _Remembered(Struct, frozen=True, gc=False):
    until_ms: int
    kept: Any


_NO_HIDES: Mapping[str, int] = MappingProxyType({})


class MemoryCounters:
    """Caps for one process. Replicas that share viewers need counters that they share too.

    Until they are `filled`, they know of nothing, and say so by CountersAway; hides are taken all the same. So they do of
    a viewer whose erasure goes on.
    """

    def __init__(
        self, epoch: int, *, filled: bool = True, memos: Memos = AS_THEY_ARE, erased: Erased | None = None
    ) -> None:
        self.epoch = epoch
        self._erased = erased or Erased()
        self.filled = filled
        self._shards: defaultdict[int, Shard] = defaultdict(Shard)
        self._profiles = Profiles()
        self._memos = memos
        self._requests: dict[bytes, _Remembered] = {}  # by viewer and request in one
        self._recalled: Tally | None = None
        self._unsettled: set[UUID] = set()
        self._unsettled_until_ms = 0
        self._unswept: list[bytes] = []
        self._unswept_requests: list[bytes] = []
        self._sweeping = Shard()
        self._unswept_shards: list[Shard] = []

    def assumed(self, _viewer: bytes, _now_ms: int) -> None:
        """Nothing: `recall` is a look into memory, so nothing needs to be assumed."""

    async def recall(self, viewer: bytes, request: str | None, now_ms: int, _wait_ms: int = 0) -> Past:
        if self._erased.covers(viewer, now_ms):
            raise CountersAway(ERASING)
        tally = self._recalled = self._tally(viewer, now_ms)
        return Past(tally.exposures, self._earlier(viewer, request, now_ms))

    def _earlier(self, viewer: bytes, request: str | None, now_ms: int) -> Earlier | None:
        remembered = None if request is None else self._requests.get(viewer + request.encode())
        if remembered is None or remembered.until_ms < now_ms:
            return None
        return Earlier(*self._memos.again(remembered.kept))

    async def reserve(self, viewer: bytes, ask: Reservation, now_ms: int, _wait_ms: int = 0) -> Grant:
        """Walks the ranked list once and reserves the first admissible ad for each ticket; none when the viewer would have
        more than OPEN_MAX open, or ENTRIES_MAX in all. Raises PastDiffers, and CountersAway."""
        tally = self._tally(viewer, now_ms)
        earlier = self._earlier(viewer, ask.request, now_ms)
        if earlier is not None:
            raise PastDiffers(Past(tally.exposures, earlier))
        wanted = len(ask.tickets)
        if tally.open + wanted > OPEN_MAX or (
            len(tally.packed) > _MUCH_BYTES and _overfull(tally.packed, wanted, now_ms)
        ):
            return Grant((), None, ())
        grant = _walk(tally, ask)
        if grant.reserved:
            packed = tally.packed
            if tally.lapsed > LAPSED_MAX:
                packed = entries.pruned(packed, now_ms)
            for index, ticket in zip(grant.reserved, ask.tickets, strict=False):
                profile = self._profiles.number(ask.candidates[index].keys)
                packed += entries.reserved(ticket, ask.expires_at_ms, profile)
            self._keep(viewer, packed)
            if ask.request is not None:
                kept = self._memos.keep(ask.digest, grant, ask.memo)
                self._requests[viewer + ask.request.encode()] = _Remembered(ask.expires_at_ms, kept)
                if len(self._requests) > REQUESTS_MAX:
                    del self._requests[next(iter(self._requests))]
        return grant

    async def usage(self, viewer: bytes, keys_windows: Sequence[tuple[str, int]], now_ms: int) -> list[int]:
        """How many entries each (key, window_ms) holds now, reservations included."""
        tally = self._tally(viewer, now_ms)
        return [tally.count(key, window_ms) for key, window_ms in keys_windows]

    async def confirm(self, ticket: Ticket, at_ms: int, now_ms: int) -> bool:
        """Whether the impression received at `at_ms` counts. The ticket's first confirmation decides; later ones
        repeat it.

        A reservation of this epoch moves to `at_ms` unconditionally: it was counted all along. Anything else must fit
        every window that contains `at_ms`: what is not known here (released, lapsed, or from before a crash), what a
        checkpoint remembers as reserved (it may have been released since), and what is known with a later moment.
        """
        packed, offset, entry = self._find(ticket)
        known = entry is not None and entry.state != RESERVED
        if entry is not None and known and (entry.state == REFUSED or at_ms >= entry.at_ms):
            if at_ms > entry.at_ms and ticket.ticket in self._unsettled:
                await self.doubt(ticket)
            return entry.state != REFUSED
        if entry is None:
            if _overfull(packed, 1, now_ms):
                return False
            keys = keys_counted(ticket.ad, ticket.campaign, ticket.advertiser, ticket.labels)
            profile = self._profiles.number(keys)
        else:
            profile = entry.profile
        expires_at_ms = ticket.expires_at_ms
        if entry is not None and not known and ticket.epoch == self.epoch and entry.open(now_ms):
            fits = True
        else:
            others = packed if offset < 0 else entries.put(packed, offset, b"")
            fits = entries.fits(others, ticket.rules, self._profiles.by_number, at_ms, now_ms)
        if not known:
            now = entries.decided(ticket.ticket, fits, at_ms, expires_at_ms, profile)
            self._keep(ticket.viewer_cap, entries.put(packed, offset, now))
        elif fits:
            now = entries.doubted(ticket.ticket, at_ms, expires_at_ms, profile)
            self._keep(ticket.viewer_cap, entries.put(packed, offset, now))
        return fits

    async def doubt(self, ticket: Ticket) -> None:
        """With which moment the event that confirmed the ticket is stored, and whether it is, is not known. Never raises: counters
        that are not filled have confirmed nothing."""
        if not self.filled:
            return
        packed, offset, entry = self._find(ticket)
        if entry is not None:
            self._doubt(ticket.viewer_cap, packed, offset, ticket.ticket, ticket.expires_at_ms)

    async def release(self, ticket: Ticket, now_ms: int) -> bool:
        """Gives back a reservation; false when there is none (already shown, released or lapsed)."""
        packed, offset, entry = self._find(ticket)
        if entry is None or entry.state != RESERVED or entry.lapsed(now_ms):
            return False
        self._keep(ticket.viewer_cap, entries.put(packed, offset, b""))
        return True

    async def hide(self, ticket: Ticket, at_ms: int) -> None:
        """The viewer does not want this advertiser: its ads are withheld for as long as entries are kept."""
        self.restore_hide(ticket.viewer_cap, ticket.advertiser, at_ms)

    def sweep(self, now_ms: int) -> None:
        """Forgets what no window can contain any more, of some viewers a call, so that no request waits for all."""
        if now_ms > self._unsettled_until_ms:
            self._unsettled.clear()
        left = SWEPT_AT_ONCE
        for _ in range(1 + len(self._shards)):
            if not self._unswept:
                if not self._unswept_shards:
                    self._unswept_shards = list(self._shards.values()) or [self._sweeping]
                    if self.filled:  # a checkpoint being loaded has numbers in use that nobody sees
                        self._profiles.forget_unseen()
                self._sweeping = self._unswept_shards.pop()
                self._unswept = self._sweeping.viewers()
            some = self._unswept[-left:]
            del self._unswept[-left:]
            for key in some:
                self._profiles.see(self._sweeping.sweep(key, now_ms))
            left -= len(some)
            if not left:
                break
        if not self._unswept_requests:
            self._unswept_requests = list(self._requests)
        for request in self._unswept_requests[-SWEPT_AT_ONCE:]:
            if request in self._requests and self._requests[request].until_ms < now_ms:
                del self._requests[request]
        del self._unswept_requests[-SWEPT_AT_ONCE:]

    async def erase(self, viewer: bytes) -> None:
        """Of the viewer nothing is left here, nor in what is still to be swept."""
        self._shards[viewer[0]].erase(viewer[:KEY_BYTES])
        for request in [request for request in self._requests if request.startswith(viewer)]:
            del self._requests[request]
        self._unswept = [key for key in self._unswept if key != viewer[:KEY_BYTES]]
        self._unswept_requests = [
            request for request in self._unswept_requests if not request.startswith(viewer)
        ]
        self._recalled = None

    async def held(self, viewer: bytes) -> Held:
        shard, key = self._shards[viewer[0]], viewer[:KEY_BYTES]
        counted = [
            Counted(self._profiles.by_number[entry.profile], entries.STATES[entry.state], entry.at_ms)
            for entry in entries.entries_of(shard.entries.get(key, b""))
        ]
        requests = [
            request.removeprefix(viewer).decode() for request in self._requests if request.startswith(viewer)
        ]
        return Held(counted, dict(shard.hides.get(key, {})), requests)

    def restore(
        self,
        viewer: bytes,
        ticket: UUID,
        counted: bool,
        at_ms: int,
        expires_at_ms: int,
        keys: Profile,
        settled: bool = True,
    ) -> None:
        """Puts back an impression or view that the event log holds; the log's word is final, and of a ticket's events the first decides
        that counts. Of what is not `settled` yet, the same may be stored with a later moment: should it come, or have come,
        with one, it is doubted."""
        packed = self._packed(viewer)
        offset = entries.find(packed, ticket)
        if (
            offset < 0
            or (entry := entries.entry_at(packed, offset)).state == RESERVED
            or (entry.state == DOUBTED and ticket not in self._unsettled)
            or (counted and entry.state == REFUSED)
        ):
            decided = entries.decided(ticket, counted, at_ms, expires_at_ms, self._profiles.number(keys))
            self._keep(viewer, entries.put(packed, offset, decided))
        elif at_ms > entry.at_ms and ticket in self._unsettled:
            self._doubt(viewer, packed, offset, ticket, expires_at_ms)
        if not settled:
            self._unsettled.add(ticket)
            self._unsettled_until_ms = max(expires_at_ms, self._unsettled_until_ms)

    def restore_hide(self, viewer: bytes, advertiser: int, at_ms: int) -> None:
        hides = self._shards[viewer[0]].hides.setdefault(viewer[:KEY_BYTES], {})
        key = hide_key(advertiser)
        hides[key] = max(at_ms, hides.get(key, at_ms))

    def dump(self) -> Iterator[bytes]:
        """The entries and hides as versioned parts of bounded size, for a checkpoint.

        A part is of the moment when it is asked for: requests may come between.
        """
        told = 0
        for shard in list(self._shards.values()):
            keys = iter(shard.viewers())
            while some := list(islice(keys, PART_VIEWERS)):
                packed = [shard.entries.get(key, b"") for key in some]
                hides = {key: shard.hides[key] for key in some if key in shard.hides}
                part = encode_part(list(self._profiles.since(told)), some, packed, hides)
                told = len(self._profiles)
                yield part

    async def load(self, parts: AsyncIterable[bytes], doubted_from_ms: int) -> None:
        """Takes a checkpoint's parts. What was confirmed from that moment on may not have been stored before a crash:
        it is for `restore` to say. Raises CheckpointUnreadable; what earlier parts held stays, and to put back all events on
        top of it is right."""
        loader = Loader(self._profiles.number, doubted_from_ms)
        async for part in parts:
            for key, packed, hides in loader.viewers(part):
                shard = self._shards[key[0]]
                if packed:
                    shard.entries[key] = packed
                if hides:
                    shard.hides[key] = hides | shard.hides.get(key, {})
            await asyncio.sleep(0)

    def __len__(self) -> int:
        """How many viewers have entries."""
        return sum(len(shard.entries) for shard in self._shards.values())

    def _tally(self, viewer: bytes, now_ms: int) -> Tally:
        """The one of `recall` serves `reserve` too, once, when nothing came between."""
        if not self.filled:
            raise CountersAway(FILLING)
        shard, key = self._shards[viewer[0]], viewer[:KEY_BYTES]
        packed, hides = shard.entries.get(key, b""), shard.hides.get(key, _NO_HIDES)
        recalled, self._recalled = self._recalled, None
        if (
            recalled is not None
            and recalled.packed is packed
            and recalled.hides is hides
            and recalled.now_ms == now_ms
        ):
            return recalled
        return Tally(packed, hides, self._profiles.by_number, now_ms)

    def _packed(self, viewer: bytes) -> bytes:
        return self._shards[viewer[0]].entries.get(viewer[:KEY_BYTES], b"")

    def _keep(self, viewer: bytes, packed: bytes) -> None:
        self._shards[viewer[0]].keep(viewer[:KEY_BYTES], packed)

    def _doubt(self, viewer: bytes, packed: bytes, offset: int, ticket: UUID, expires_at_ms: int) -> None:
        entry = entries.entry_at(packed, offset)
        if entry.state in entries.SHOWN:
            doubted = entries.doubted(ticket, expires_at_ms, expires_at_ms, entry.profile)
            self._keep(viewer, entries.put(packed, offset, doubted))

    def _find(self, ticket: Ticket) -> tuple[bytes, int, Entry | None]:
        """The viewer's entries, and where among them the ticket's begins."""
        if not self.filled:
            raise CountersAway(FILLING)
        packed = self._packed(ticket.viewer_cap)
        offset = entries.find(packed, ticket.ticket)
        return packed, offset, None if offset < 0 else entries.entry_at(packed, offset)


def _overfull(packed: bytes, more: int, now_ms: int) -> bool:
    """Whether so many more entries would be too many."""
    most_bytes = (ENTRIES_MAX - more) * entries.ENTRY_BYTES
    return len(packed) > most_bytes and len(entries.pruned(packed, now_ms)) > most_bytes


def _walk(tally: Tally, ask: Reservation) -> Grant:
    """What may be granted; the tally then holds what is reserved."""
    candidates, wanted = ask.candidates, len(ask.tickets)
    reserved: list[int] = []
    capped: list[tuple[int, Rule]] = []
    runner_up = None
    for index, candidate in enumerate(candidates):
        full = len(reserved) == wanted
        if full and not _competes(candidate, candidates[reserved[-1]]):
            continue
        broken = tally.broken_rule(candidate.rules)
        if broken is not None:
            capped.append((index, broken))
        elif full:
            runner_up = index
            break
        else:
            tally.add(candidate.keys)
            reserved.append(index)
    if ask.whole:
        priced = runner_up is not None or (
            bool(reserved) and candidates[reserved[-1]].tier == Tier.GUARANTEED
        )
        if len(reserved) < wanted or not priced:
            reserved, runner_up = [], None
    return Grant(tuple(reserved), runner_up, tuple(capped))


def _competes(candidate: Candidate, last: Candidate) -> bool:
    return candidate.tier == last.tier and candidate.advertiser != last.advertiser
