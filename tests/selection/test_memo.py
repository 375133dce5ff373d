"""What is kept of an offer gives the same awards again, without the catalogue that it was made from."""

import pytest
from market import make_ad, make_view, per_click
from msgspec import structs
from test_decide import make_offer

from adserve.domain.ads import Ad, Cap
from adserve.domain.slots import Context
from adserve.domain.targeting import Targeting
from adserve.limits.reservations import Grant
from adserve.selection.decide import award
from adserve.selection.memo import decode_offer, encode_offer, keep_offer, offer_again

BYTES_MAX = 3_000
HEAD_BYTES_MAX = 400

GRANTS = (
    Grant(reserved=(0, 1, 2), runner_up=3, capped=()),
    Grant(reserved=(1, 4), runner_up=None, capped=()),
    Grant(reserved=(2, 3), runner_up=6, capped=()),
)


def ads() -> list[Ad]:
    caps = (Cap("campaign", 3, 86_400), Cap("all", 9, 3_600))
    targeting = Targeting(countries=("ID", "IN"), interests=tuple(f"word {number}" for number in range(100)))
    plain = [
        make_ad(number, bid_micros=number * 1_000_000, caps=caps, separation=("drinks",))
        for number in range(1, 8)
    ]
    return [*plain, make_ad(8, bid_micros=9_000_000, targeting=targeting), per_click(9, 500_000)]


def kept(parts: list[bytes], grant: Grant) -> list[bytes]:
    """What the counters keep of them."""
    places = [*grant.reserved] if grant.runner_up is None else [*grant.reserved, grant.runner_up]
    return [parts[0], *(parts[place + 1] for place in places)]


@pytest.mark.parametrize("grant", GRANTS)
def test_the_awards_come_again_in_the_process_itself(grant: Grant) -> None:
    offer = make_offer(make_view(ads()), context=Context(country="ID", platform="android"))
    memo = keep_offer(b"body", grant, offer)
    digest, granted, again = offer_again(memo)
    assert digest == b"body"
    assert award(again, granted) == award(offer, grant)
    assert len(memo.head) < HEAD_BYTES_MAX


@pytest.mark.parametrize("grant", GRANTS)
def test_the_awards_come_again(grant: Grant) -> None:
    view = make_view(ads())
    offer = make_offer(
        view, context=Context(country="ID", platform="android", interests=("word 1",)), personalised=True
    )
    memo = kept(encode_offer(offer), grant)
    again = decode_offer(memo, grant)
    assert award(again, grant) == award(offer, grant)
    shown = [again.contenders[place].ad for place in grant.reserved]
    for ad, place in zip(shown, grant.reserved, strict=True):
        original = offer.contenders[place].ad
        assert (ad.id, ad.advertiser_name, ad.creative) == (
            original.id,
            original.advertiser_name,
            original.creative,
        )
    assert sum(map(len, memo)) < BYTES_MAX


def test_control_another_price_would_be_noticed() -> None:
    grant = GRANTS[0]
    offer = make_offer(make_view(ads()))
    again = decode_offer(kept(encode_offer(offer), grant), grant)
    dearer = structs.replace(again, floor_micros=8_000_000)
    assert award(dearer, grant) != award(offer, grant)
