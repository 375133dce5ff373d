"""An offer as bytes: what counters keep with a reservation, so that a retry is answered alike.

Of each ad that was granted everything is kept that the answer shows and the price needs: meanwhile it may have changed, or left the
catalogue. Shared counters keep all of it, as any process may be asked again; those of one process keep the very ads beside the bytes.
"""

import zlib
from collections.abc import Sequence
from typing import TypeVar
from uuid import UUID

from msgspec import Struct, msgpack, structs

from adserve.domain.ads import Ad
from adserve.domain.targeting import Targeting
from adserve.limits.leases import Hold
from adserve.limits.reservations import Candidate, Grant
from adserve.selection.compiled import CompiledAd
from adserve.selection.decide import Offer
from adserve.selection.pricing import Contender

ADS_CACHED_MAX = 131_072


class _Part(Struct, array_like=True):
    """A contender with its hold; `compiled` is zlib's."""

    value_micros: float
    click_rate: float
    hold: Hold
    compiled: bytes


class _Head(Struct, array_like=True, frozen=True, gc=False):
    """An offer without its ads, and what was granted of it; the numbers are those of each contender in the grant."""

    digest: bytes
    reserved: tuple[int, ...]
    runner_up: int | None
    decision: UUID
    viewer_cap: bytes
    viewer_log: bytes
    surface: str
    country: str
    platform: str
    floor_micros: int
    positions: tuple[int, ...]
    tickets: tuple[UUID, ...]
    model: str
    catalogue_version: int
    epoch: int
    issued_at_ms: int
    expires_at_ms: int
    arm: str
    numbers: tuple[tuple[float, float, int, int, int], ...]


class Kept(Struct, frozen=True, gc=False):
    """An offer that was granted, as one process keeps it."""

    head: bytes
    compiled: tuple[CompiledAd, ...]


_OF_THE_OFFER = [name for name in Offer.__struct_fields__ if name in _Head.__struct_fields__]

_encode_head, _decode_head = msgpack.Encoder(uuid_format="bytes").encode, msgpack.Decoder(_Head).decode
_encode = msgpack.Encoder().encode
_decode_offer = msgpack.Decoder(Offer).decode
_decode_part = msgpack.Decoder(_Part).decode
_decode_compiled = msgpack.Decoder(CompiledAd).decode

_packed: dict[Ad, bytes] = {}

_Granted = TypeVar("_Granted")


def encode_offer(offer: Offer) -> list[bytes]:
    """The offer without its contenders, and a part for each of these."""
    parts = [
        _encode((contender.value_micros, contender.click_rate, hold, _pack(contender.compiled)))
        for contender, hold in zip(offer.contenders, offer.holds, strict=True)
    ]
    return [_encode(structs.replace(offer, contenders=(), holds=())), *parts]


def decode_offer(kept: Sequence[bytes], grant: Grant) -> Offer:
    """With the contenders of the grant in their places; what stands between them was not granted and is of no matter."""
    head, *parts = kept
    row = _in_their_places(list(map(_decode_part, parts)), grant)
    contenders = [
        Contender(_decode_compiled(zlib.decompress(part.compiled)), part.value_micros, part.click_rate)
        for part in row
    ]
    return structs.replace(
        _decode_offer(head), contenders=tuple(contenders), holds=tuple(part.hold for part in row)
    )


def keep_offer(digest: bytes, grant: Grant, offer: Offer) -> Kept:
    """A fifth of their memory."""
    granted = [(offer.contenders[place], offer.holds[place]) for place in grant.places]
    numbers = [
        (contender.value_micros, contender.click_rate, hold.lease, hold.budget_day, hold.micros)
        for contender, hold in granted
    ]
    head = (
        digest,
        grant.reserved,
        grant.runner_up,
        offer.decision,
        offer.viewer_cap,
        offer.viewer_log,
        offer.surface,
        offer.country,
        offer.platform,
        offer.floor_micros,
        offer.positions,
        offer.tickets,
        offer.model,
        offer.catalogue_version,
        offer.epoch,
        offer.issued_at_ms,
        offer.expires_at_ms,
        offer.arm,
        numbers,
    )
    compiled = tuple([contender.compiled for contender, _ in granted])
    return Kept(_encode_head(head), compiled)


def offer_again(kept: Kept) -> tuple[bytes, Grant, Offer]:
    """The digest, the grant but for what was capped, and the offer as `decode_offer` has it."""
    head = _decode_head(kept.head)
    grant = Grant(head.reserved, head.runner_up, ())
    row = _in_their_places(list(zip(kept.compiled, head.numbers, strict=True)), grant)
    told = {name: getattr(head, name) for name in _OF_THE_OFFER}
    contenders = tuple(Contender(compiled, *numbers[:2]) for compiled, numbers in row)
    holds = tuple(Hold(*numbers[2:]) for _, numbers in row)
    return head.digest, grant, Offer(contenders=contenders, holds=holds, **told)


def _in_their_places(granted: Sequence[_Granted], grant: Grant) -> list[_Granted]:
    """What stands between them is one of them."""
    by_place = dict(zip(grant.places, granted, strict=True))
    return [by_place.get(place, granted[0]) for place in range(max(by_place) + 1)]


def _pack(compiled: CompiledAd) -> bytes:
    """Without the rules of placing it: a retry places nothing."""
    packed = _packed.get(compiled.ad)
    if packed is None:
        campaign = structs.replace(compiled.ad.campaign, targeting=Targeting(), caps=())
        lean = compiled._replace(
            ad=structs.replace(compiled.ad, campaign=campaign),
            candidate=Candidate(compiled.candidate.advertiser, compiled.candidate.tier, (), ()),
        )
        if len(_packed) >= ADS_CACHED_MAX:
            _packed.clear()
        packed = _packed[compiled.ad] = zlib.compress(_encode(lean))
    return packed
