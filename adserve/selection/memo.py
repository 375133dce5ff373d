"""An offer as bytes: what shared counters keep with a reservation, so that any process answers a retry alike.

Of each ad that was granted everything is kept that the answer shows and the price needs: meanwhile it may have changed, or left the
catalogue.
"""

import zlib
from collections.abc import Sequence

from msgspec import Struct, msgpack, structs

from adserve.domain.ads import Ad
from adserve.domain.targeting import Targeting
from adserve.limits.counters import Candidate, Grant
from adserve.limits.leases import Hold
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


_encode = msgpack.Encoder().encode
_decode_offer = msgpack.Decoder(Offer).decode
_decode_part = msgpack.Decoder(_Part).decode
_decode_compiled = msgpack.Decoder(CompiledAd).decode

_packed: dict[Ad, bytes] = {}


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
    places = list(grant.reserved) if grant.runner_up is None else [*grant.reserved, grant.runner_up]
    granted = dict(zip(places, map(_decode_part, parts), strict=True))
    filler = granted[places[0]]
    row = [granted.get(place, filler) for place in range(max(places) + 1)]
    contenders = [
        Contender(_decode_compiled(zlib.decompress(part.compiled)), part.value_micros, part.click_rate)
        for part in row
    ]
    return structs.replace(
        _decode_offer(head), contenders=tuple(contenders), holds=tuple(part.hold for part in row)
    )


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
