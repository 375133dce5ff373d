"""What this process has heard of viewers that other processes show ads to as well."""

from functools import lru_cache
from struct import Struct

from adserve.domain.time import MINUTE_MS
from adserve.limits.erased import Erased
from adserve.limits.reservations import Past
from adserve.limits.rules import ALL
from adserve.store.wire import KEYS_CACHED_MAX, key_of

PASTS_MAX = 65_536
"""In two generations, of which the older one is forgotten when the younger is full or old."""
GENERATION_MS = 20 * MINUTE_MS
"""What is not heard again is forgotten after twice this at the latest: within the hour that an erasure may take, also where this
process never hears of it."""

_SEEN = Struct(">HH")
_NOTHING_SEEN = Past({}, None, b"")


class Pasts:
    """The last that was heard of each viewer, as `seen_of` in lua/counters.lua tells it; of one who is being erased nothing."""

    def __init__(self, erased: Erased) -> None:
        self._erased = erased
        self._young: dict[bytes, Past] = {}
        self._old: dict[bytes, Past] = {}
        self._turned_ms = 0

    def of(self, viewer: bytes, now_ms: int) -> Past | None:
        return None if self._erased.covers(viewer, now_ms) else self._known(viewer)

    def learn(self, viewer: bytes, seen: bytes, now_ms: int) -> Past:
        past = self._known(viewer)
        if past is None or past.assumed != seen:
            past = Past(_exposures_of(seen), None, seen) if seen else _NOTHING_SEEN
        if not self._erased.covers(viewer, now_ms):
            if len(self._young) >= PASTS_MAX // 2:
                self._turn(now_ms)
            self._young[viewer] = past
        return past

    def age(self, now_ms: int) -> None:
        if now_ms - self._turned_ms >= GENERATION_MS:
            self._turn(now_ms)

    async def erase(self, viewer: bytes) -> None:
        self._young.pop(viewer, None)
        self._old.pop(viewer, None)

    def _known(self, viewer: bytes) -> Past | None:
        return self._young.get(viewer) or self._old.get(viewer)

    def _turn(self, now_ms: int) -> None:
        self._old, self._young, self._turned_ms = self._young, {}, now_ms


def _exposures_of(seen: bytes) -> dict[str, int]:
    exposures = {ALL: 0}
    at = 0
    while at < len(seen):
        size, count = _SEEN.unpack_from(seen, at)
        at += _SEEN.size + size
        campaign = _campaign_of(seen[at - size : at])
        exposures[campaign] = exposures.get(campaign, 0) + count
        exposures[ALL] += count
    return exposures


@lru_cache(KEYS_CACHED_MAX)
def _campaign_of(packed: bytes) -> str:
    """The campaign's key, the second of a group's."""
    at = 2 + (packed[1] & 0x1F)
    return key_of(packed[at + 1 : at + 1 + (packed[at] & 0x1F)])
