"""Catalogue ids are integers below 2^53; decisions, tickets and events are uuid7."""

from hashlib import blake2b
from typing import NewType
from uuid import UUID

import msgspec

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
_LOW_80 = (1 << 80) - 1

_IDS_A_HASH = 4
_CELL_BITS = 144
"""Of a uuid in MessagePack: two bytes before it say that there are 16."""
_ARRAY = bytes([0x90 | _IDS_A_HASH])
_IN_EACH = sum(1 << cell * _CELL_BITS for cell in range(_IDS_A_HASH))
_FIXED_IN_EACH = (0xC410 << 128 | _VERSION | _VARIANT) * _IN_EACH
_RANDOM_IN_EACH = (0xFFF << 64 | _LOW_62) * _IN_EACH

_decode_uuids = msgspec.msgpack.Decoder(list[UUID]).decode


def uuid7(at_ms: int, randomness: int) -> UUID:
    """The uuid of version 7 (RFC 9562, section 5.7) for a time and at least 74 bits of `randomness`."""
    chance = randomness & ((1 << _RANDOM_BITS) - 1)
    return UUID(int=(at_ms << 80) | _VERSION | ((chance >> 62) << 64) | _VARIANT | (chance & _LOW_62))


def moment_of(id_: UUID) -> int:
    """The time of a uuid7, in milliseconds since the epoch."""
    return id_.int >> 80


def at_moment(id_: UUID, at_ms: int) -> UUID:
    """The same uuid7, of another time."""
    return id_ if moment_of(id_) == at_ms else UUID(int=at_ms << 80 | id_.int & _LOW_80)


def derived_uuid7(at_ms: int, seed: int, index: int) -> UUID:
    """The `index`-th uuid7 of a decision: the same time, seed and index give the same id."""
    nth, part = divmod(index, _IDS_A_HASH)
    return _uuid7s_of_hash(at_ms, seed, nth)[part]


def derived_uuid7s(at_ms: int, seed: int, count: int) -> list[UUID]:
    """The first `count` of them."""
    ids: list[UUID] = []
    for nth in range(-(-count // _IDS_A_HASH)):
        ids += _uuid7s_of_hash(at_ms, seed, nth)
    return ids[:count]


def _uuid7s_of_hash(at_ms: int, seed: int, nth: int) -> list[UUID]:
    """All at once, as MessagePack: to make them one by one takes four times as long."""
    chance = int.from_bytes(blake2b(seed.to_bytes(16, "big") + nth.to_bytes(4, "big")).digest(), "big")
    ids = (at_ms << 80) * _IN_EACH | _FIXED_IN_EACH | chance & _RANDOM_IN_EACH
    return _decode_uuids(_ARRAY + ids.to_bytes(_IDS_A_HASH * _CELL_BITS // 8, "big"))
