"""What a prediction looks at, as indexes into one table of weights (the hashing trick: Weinberger et al., 2009).

A token like `country=ID` is hashed to 64 bits, the top BITS of which are its index. A cross of a viewer's token
with a campaign mixes their two hashes arithmetically, so that serving crosses whole arrays without building strings.
"""

from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import mmh3
import numpy as np
import numpy.typing as npt

from adserve.domain.ads import Ad
from adserve.domain.facts import EXPOSURE_WINDOW_MS, EXPOSURES_MAX, EXPOSURES_UNKNOWN, ViewerFacts

Hashes = npt.NDArray[np.uint64]
Indexes = npt.NDArray[np.intp]
Integers = npt.NDArray[np.signedinteger[Any]]
Numbers = npt.NDArray[np.float64]

HASH_SEED = 0x51A7
BITS = 18
BUCKETS = 1 << BITS

AGE_FROM = (18, 25, 35, 45, 55, 65)
HOURS_A_PART = 4

TOKENS_CACHED_MAX = 4_096

_SHIFT = np.uint64(64 - BITS)
_MIX = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: Knuth's multiplicative hashing

SCHEMA: dict[str, Any] = {
    "version": 1,
    "hash": "murmur3-x64-128",
    "hash_seed": HASH_SEED,
    "bits": BITS,
    "viewer": [
        "country",
        "language",
        "platform",
        "age",
        "interest",
        "part_of_day",
        "weekday",
        "surface",
        "custom",
        "seen",
    ],
    "ad": ["ad", "campaign", "advertiser", "kind", "call_to_action", "exposures"],
    "crosses": ["campaign x country", "campaign x platform", "campaign x age", "campaign x interest"],
    "age_from": list(AGE_FROM),
    "hours_a_part": HOURS_A_PART,
    "exposures_max": EXPOSURES_MAX,
    "exposure_window_ms": EXPOSURE_WINDOW_MS,
}
"""Goes into every artifact; one that was trained with another is refused."""


class AdFacts(NamedTuple):
    ad: int
    campaign: int
    advertiser: int
    kind: str
    call_to_action: str


class ViewerHashes(NamedTuple):
    """`crossed` are the hashes that meet the campaign's as well; they are among `indexes` too."""

    indexes: Indexes
    crossed: Hashes


def ad_facts(ad: Ad) -> AdFacts:
    return AdFacts(ad.id, ad.campaign.id, ad.advertiser, ad.creative.kind, ad.creative.call_to_action)


def viewer_hashes(viewer: ViewerFacts) -> ViewerHashes:
    """A part that is not known gets a token, but no cross: those would share a campaign's weight among them and
    then miss from it as soon as the part is known."""
    crossable = [
        ("country", viewer.country),
        ("platform", viewer.platform),
        ("age", None if viewer.age is None else bisect_right(AGE_FROM, viewer.age)),
        *[("interest", interest) for interest in viewer.interests or (None,)],
    ]
    crossed = [_hash(part, value) for part, value in crossable if value is not None]
    hashes = [
        _hash("language", viewer.languages[-1] if viewer.languages else None),
        _hash("part_of_day", None if viewer.hour is None else viewer.hour // HOURS_A_PART),
        _hash("weekday", viewer.weekday),
        _hash("surface", viewer.surface),
        *[_hash("custom", f"{name}={value}") for name, value in viewer.custom],
        *_steps("seen", EXPOSURES_UNKNOWN if viewer.seen is None else viewer.seen),
        *[_hash(part, None) for part, value in crossable if value is None],
        *crossed,
    ]
    return ViewerHashes(_indexes(hashes), np.array(crossed, np.uint64))


def ad_indexes(ad: AdFacts) -> Indexes:
    return _indexes([_hash(part, value) for part, value in ad._asdict().items()])


def campaign_hash(campaign: int) -> int:
    return _hash("campaign", campaign)


def exposure_indexes(exposures: int) -> Indexes:
    """Of the viewer's impressions of the ad's campaign in the last EXPOSURE_WINDOW_MS, or EXPOSURES_UNKNOWN."""
    return _indexes(_steps("exposures", exposures))


def cross(viewer: Hashes, campaigns: Hashes) -> Indexes:
    """Indexes of shape (viewer hashes, campaigns)."""
    return (((viewer[:, np.newaxis] ^ campaigns) * _MIX) >> _SHIFT).view(np.intp)


def _steps(name: str, count: int) -> list[int]:
    """One token for each step up to the count: what the fourth exposure adds is learnt apart from the third."""
    if count == EXPOSURES_UNKNOWN:
        return [_hash(name, None)]
    return [_hash(name, step) for step in range(1, min(count, EXPOSURES_MAX) + 1)]


@lru_cache(TOKENS_CACHED_MAX)
def _hash(name: str, value: str | int | None) -> int:
    token = f"{name}=" if value is None else f"{name}={value}"
    return mmh3.hash64(token, HASH_SEED, signed=False)[0]


def _indexes(hashes: Sequence[int]) -> Indexes:
    return (np.array(hashes, np.uint64) >> _SHIFT).view(np.intp)
