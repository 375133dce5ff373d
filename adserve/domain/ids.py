"""Catalogue ids are integers below 2^53; decisions, tickets and events are uuid7."""

import hashlib
from typing import NewType
from uuid import UUID

AdvertiserId = NewType("AdvertiserId", int)
CampaignId = NewType("CampaignId", int)
CreativeId = NewType("CreativeId", int)
AdId = NewType("AdId", int)
LeaseId = NewType("LeaseId", int)
KeyId = NewType("KeyId", int)
DecisionId = NewType("DecisionId", UUID)
TicketId = NewType("TicketId", UUID)
EventId = NewType("EventId", UUID)

CATALOGUE_ID_MAX = 2**53 - 1

_RANDOM_BITS = 74
_VERSION = 7 << 76
_VARIANT = 0b10 << 62
_LOW_62 = (1 << 62) - 1


def uuid7(at_ms: int, randomness: int) -> UUID:
    """The uuid of version 7 (RFC 9562, section 5.7) for a time and at least 74 bits of `randomness`."""
    chance = randomness & ((1 << _RANDOM_BITS) - 1)
    return UUID(int=(at_ms << 80) | _VERSION | ((chance >> 62) << 64) | _VARIANT | (chance & _LOW_62))


def derived_uuid7(at_ms: int, seed: int, index: int) -> UUID:
    """The `index`-th uuid7 of a decision: the same time, seed and index give the same id."""
    digest = hashlib.blake2b(seed.to_bytes(16, "big") + index.to_bytes(4, "big"), digest_size=10).digest()
    return uuid7(at_ms, int.from_bytes(digest, "big"))
