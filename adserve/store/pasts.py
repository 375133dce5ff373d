"""What this process has heard of viewers that other processes show ads to as well."""

from functools import lru_cache
from struct import Struct

from adserve.limits.erased import Erased
from adserve.limits.reservations import Past
from adserve.limits.rules import ALL
from adserve.store.wire import KEYS_CACHED_MAX, key_of

PASTS_MAX = 65_536
"""That of the viewer who was heard of least lately is forgotten first."""

_SEEN = Struct(">HH")
_NOTHING_SEEN = Past({}, None, b"")


class Pasts:
    """The last that was heard of each viewer, as `seen_of` in lua/counters.lua tells it; of one who is being erased nothing."""

    def __init__(self, erased: Erased) -> None:
        self._erased = erased
        self._pasts: dict[bytes, Past] = {}

    def of(self, viewer: bytes, now_ms: int) -> Past | None:
        return None if self._erased.covers(viewer, now_ms) else self._pasts.get(viewer)

    def learn(self, viewer: bytes, seen: bytes, now_ms: int) -> Past:
        past = self._pasts.pop(viewer, None)
        if past is None or past.assumed != seen:
            past = Past(_exposures_of(seen), None, seen) if seen else _NOTHING_SEEN
            if len(self._pasts) >= PASTS_MAX:
                del self._pasts[next(iter(self._pasts))]
        if not self._erased.covers(viewer, now_ms):
            self._pasts[viewer] = past
        return past

    async def erase(self, viewer: bytes) -> None:
        self._pasts.pop(viewer, None)


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
