"""The frequency counters that several processes share, in Redis or Valkey: the twin of MemoryCounters.

One call of a function of lua/counters.lua on one viewer's keys does each thing whole. Every call names the token of its node; a node
that was emptied, restarted or replaced has another, and then nothing is counted until the counts have been rebuilt (shared_counters.py).
"""

import asyncio
from binascii import b2a_base64
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from adserve.domain.tickets import Ticket
from adserve.limits.counters import ERASING, CountersAway
from adserve.limits.erased import Erased
from adserve.limits.held import Counted, Held
from adserve.limits.reservations import Candidate, Earlier, Grant, Past, PastDiffers, Reservation
from adserve.limits.rules import GRACE_MS, RETENTION_MS, Rule, hide_key, keys_counted
from adserve.store.pasts import Pasts
from adserve.store.redis_node import LIBRARY, Node
from adserve.store.redis_nodes import Nodes
from adserve.store.wire import (
    CONFIRMED,
    REFUSED,
    Shown,
    encode,
    key_of,
    raw,
    value_of,
    wire_key,
    wire_keys,
)

CANDIDATES_CACHED_MAX = 262_144
UNTOLD_MAX = 20_000
WAIT_MS = 1_000
"""How long a call that no request's deadline bounds may wait."""

_STATES = ("reserved", "confirmed", "doubted", "refused")

_RECALL, _RESERVE, _USAGE = f"{LIBRARY}_recall", f"{LIBRARY}_reserve", f"{LIBRARY}_usage"
_CONFIRM, _DOUBT = f"{LIBRARY}_confirm", f"{LIBRARY}_doubt"
_RELEASE, _RESTORE = f"{LIBRARY}_release", f"{LIBRARY}_restore"
_UNKNOWN = b"?"

_ERASE, _HELD, _FILL = f"{LIBRARY}_erase", f"{LIBRARY}_held", f"{LIBRARY}_fill"

_SCANNED = 1_000
"""How many keys a node looks at, or deletes, before others have their turn."""


class MemoCodec(NamedTuple):
    """How a reservation's memo is kept: `encode` gives a head and a part for each candidate, `decode` is given the head and
    the parts of those in the grant: the reserved in order, then the runner-up."""

    encode: Callable[[Any], list[bytes]]
    decode: Callable[[list[bytes], Grant], Any]


class Restored(NamedTuple):
    """What the event log says of one ticket."""

    ticket: UUID
    counted: bool
    at_ms: int
    keys: tuple[str, ...]


class RedisCounters:
    """`nodes` is None while the counts cannot be known: then every call raises CountersAway."""

    def __init__(self, codec: MemoCodec, erased: Erased | None = None) -> None:
        self._erased = erased or Erased()
        self.epoch = 0
        self.nodes: Nodes | None = None
        self.untold: deque[Ticket] = deque(maxlen=UNTOLD_MAX)
        self.untold_hides: deque[tuple[Ticket, int]] = deque()
        self.hides_missing_from_ms: int | None = None
        self._codec = codec
        self._candidates: dict[int, tuple[Candidate, bytes]] = {}
        self.pasts = Pasts(self._erased)

    @property
    def filled(self) -> bool:
        return self.nodes is not None

    def assumed(self, viewer: bytes, now_ms: int) -> Past | None:
        """What was heard of the viewer last, if anything: with it a decision is made by one call, `reserve`, in place of two."""
        return self.pasts.of(viewer, now_ms)

    async def recall(self, viewer: bytes, request: str | None, now_ms: int, wait_ms: int = WAIT_MS) -> Past:
        if self._erased.covers(viewer, now_ms):
            raise CountersAway(ERASING)
        seen, earlier = await self._ask(_RECALL, viewer, request, wait_ms, now_ms)
        return self._past(viewer, seen, earlier, now_ms)

    async def reserve(self, viewer: bytes, ask: Reservation, now_ms: int, wait_ms: int = WAIT_MS) -> Grant:
        told = await self._ask(
            _RESERVE,
            viewer,
            ask.request,
            wait_ms,
            now_ms,
            ask.expires_at_ms,
            b"1" if ask.whole else b"0",
            b"".join([ticket.bytes[8:] for ticket in ask.tickets]),
            b"".join(map(self._packed, ask.candidates)),
            _UNKNOWN if ask.assumed is None else ask.assumed,
            *(() if ask.request is None else (ask.digest, *self._codec.encode(ask.memo))),
        )
        if told[0] is None:
            _, seen, earlier = told
            raise PastDiffers(self._past(viewer, seen, earlier, now_ms))
        return _read_grant(told)

    def _past(self, viewer: bytes, seen: bytes, earlier: list[Any] | None, now_ms: int) -> Past:
        exposures = self.pasts.learn(viewer, seen, now_ms).exposures
        if earlier is None:
            return Past(exposures, None)
        digest, granted, memo = earlier
        grant = _read_grant(granted)
        return Past(exposures, Earlier(digest, grant, self._codec.decode(memo, grant)))

    async def usage(self, viewer: bytes, keys_windows: Sequence[tuple[str, int]], now_ms: int) -> list[int]:
        flat = [part for key, window_ms in keys_windows for part in (raw(wire_key(key)), window_ms)]
        counts: list[int] = await self._ask(_USAGE, viewer, None, WAIT_MS, now_ms, encode(flat))
        return counts

    def confirm(self, ticket: Ticket, at_ms: int, now_ms: int) -> Coroutine[Any, Any, bool]:
        """Is asked by the time that this returns, so that many may be on their way at once."""
        keys = keys_counted(ticket.ad, ticket.campaign, ticket.advertiser, ticket.labels)
        rules = [
            part for key, most, window_ms in ticket.rules for part in (raw(wire_key(key)), most, window_ms)
        ]
        reply = self._ask(
            _CONFIRM,
            ticket.viewer_cap,
            None,
            WAIT_MS,
            now_ms,
            at_ms,
            ticket.ticket.bytes[8:],
            wire_keys(keys),
            encode(rules),
        )
        return self._confirmed(reply, ticket.viewer_cap, now_ms)

    async def _confirmed(self, reply: Awaitable[Any], viewer: bytes, now_ms: int) -> bool:
        counted, seen = await reply
        if seen != _UNKNOWN:
            self.pasts.learn(viewer, seen, now_ms)
        return bool(counted)

    async def doubt(self, ticket: Ticket) -> None:
        """What cannot be told now waits in `untold`; where that has no room, another epoch has to be begun."""
        try:
            await self._ask(
                _DOUBT, ticket.viewer_cap, None, WAIT_MS, ticket.expires_at_ms, ticket.ticket.bytes[8:]
            )
        except (CountersAway, TimeoutError):
            self.untold.append(ticket)

    async def release(self, ticket: Ticket, now_ms: int) -> bool:
        released = await self._ask(
            _RELEASE, ticket.viewer_cap, None, WAIT_MS, now_ms, ticket.ticket.bytes[8:]
        )
        return bool(released)

    async def hide(self, ticket: Ticket, at_ms: int) -> None:
        """What cannot be told now waits in `untold_hides`, or is in the event log: `hides_missing_from_ms` says from when on."""
        try:
            await self.restore(ticket.viewer_cap, (), {ticket.advertiser: at_ms}, at_ms)
        except (CountersAway, TimeoutError):
            if len(self.untold_hides) < UNTOLD_MAX:
                self.untold_hides.append((ticket, at_ms))
            else:
                self.hides_missing_from_ms = min(at_ms, self.hides_missing_from_ms or at_ms)

    async def restore(
        self, viewer: bytes, entries: Iterable[Restored], hides: dict[int, int], now_ms: int
    ) -> None:
        """Puts back what the event log holds of a viewer; the log's word is final, unless the viewer was erased since."""
        told_hides = [
            part
            for advertiser, at_ms in hides.items()
            if not self._erased.covers(viewer, at_ms)
            for part in (raw(wire_key(hide_key(advertiser))), at_ms)
        ]
        told_entries = [
            part
            for entry in entries
            if not self._erased.covers(viewer, entry.at_ms)
            for part in (
                raw(entry.ticket.bytes[8:]),
                CONFIRMED if entry.counted else REFUSED,
                entry.at_ms,
                raw(wire_keys(entry.keys)),
            )
        ]
        told = encode([told_hides, told_entries])
        await self._ask(_RESTORE, viewer, None, WAIT_MS, now_ms, told)

    async def fill(self, viewers: Mapping[bytes, Sequence[Shown]], now_ms: int) -> None:
        """Puts viewers of whom nothing is there yet, as the event log has them."""
        told: defaultdict[Node, list[bytes | int]] = defaultdict(list)
        for viewer, shown in viewers.items():
            known = [self._remembered(one) for one in shown] if self._erased.covers(viewer, 0) else shown
            node, key = self._place_of(viewer)
            last_ms = max(one.last_ms for one in known)
            told[node] += (key, value_of(known), max(0, last_ms + RETENTION_MS - now_ms) + GRACE_MS)
        await asyncio.gather(
            *(
                node.call(("FCALL", _FILL, 0, node.token_key, node.token, *values), WAIT_MS)
                for node, values in told.items()
            )
        )

    def _remembered(self, shown: Shown) -> Shown:
        if self._erased.covers(shown.viewer, shown.last_ms):  # the moment of a doubt is still to come
            return shown._replace(events=b"")
        return shown.only(lambda at_ms: not self._erased.covers(shown.viewer, at_ms))

    async def erase(self, viewer: bytes) -> None:
        await self.pasts.erase(viewer)
        node, key = self._place_of(viewer)
        keys = [key, *await _requests(node, key)]
        for start in range(0, len(keys), _SCANNED):
            some = keys[start : start + _SCANNED]
            await node.call(("FCALL", _ERASE, len(some), *some, node.token_key, node.token), WAIT_MS)

    async def held(self, viewer: bytes) -> Held:
        hides, entries = await self._ask(_HELD, viewer, None, WAIT_MS)
        node, key = self._place_of(viewer)
        return Held(
            [
                Counted(tuple(map(key_of, names)), _STATES[state], at_ms)
                for names, state, at_ms in zip(entries[::3], entries[1::3], entries[2::3], strict=True)
            ],
            {key_of(name): at_ms for name, at_ms in zip(hides[::2], hides[1::2], strict=True)},
            [request.removeprefix(key).decode() for request in await _requests(node, key)],
        )

    def _ask(
        self, function: str, viewer: bytes, request: str | None, wait_ms: int, *given: bytes | int
    ) -> asyncio.Future[Any]:
        node, key = self._place_of(viewer)
        keys = (1, key) if request is None else (2, key, key + request.encode())
        return node.call(("FCALL", function, *keys, node.token_key, node.token, *given), wait_ms)

    def _place_of(self, viewer: bytes) -> tuple[Node, bytes]:
        """The node that counts a viewer, and the key there. Raises CountersAway."""
        if self.nodes is None:
            raise CountersAway("the shared counters are not ready")
        tag = b2a_base64(viewer, newline=False).rstrip(b"=")
        return self.nodes.of(tag), b"ads:{%b}" % tag

    def _packed(self, candidate: Candidate) -> bytes:
        """Kept by identity: a snapshot's candidates are the same objects in every decision."""
        known = self._candidates.get(id(candidate))
        if known is not None and known[0] is candidate:
            return known[1]
        rules = [
            part for key, most, window_ms in candidate.rules for part in (raw(wire_key(key)), most, window_ms)
        ]
        packed = encode((candidate.tier, candidate.advertiser, raw(wire_keys(candidate.keys)), rules))
        if len(self._candidates) >= CANDIDATES_CACHED_MAX:
            self._candidates.clear()
        self._candidates[id(candidate)] = (candidate, packed)
        return packed


async def _requests(node: Node, key: bytes) -> list[bytes]:
    """The keys of a viewer's answered requests. They are looked for among all keys, as nothing else needs a list of them."""
    found, cursor = [], b"0"
    while True:
        cursor, keys = await node.call(("SCAN", cursor, "MATCH", key + b"?*", "COUNT", _SCANNED), WAIT_MS)
        found += keys
        if cursor == b"0":
            return found


def tag_of(key: bytes) -> bytes:
    """What says which node has a key of a viewer's."""
    return key[key.index(b"{") + 1 : key.index(b"}")]


def _read_grant(told: list[Any]) -> Grant:
    reserved, runner_up, *capped = told
    rules = zip(capped[::4], capped[1::4], capped[2::4], capped[3::4], strict=True) if capped else ()
    return Grant(
        tuple(reserved),
        None if runner_up < 0 else runner_up,
        tuple([(place, Rule(key_of(key), most, window_ms)) for place, key, most, window_ms in rules]),
    )
