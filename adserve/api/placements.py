"""A decision as JSON. Ads repeat from answer to answer, so each is encoded once."""

from typing import Any

import orjson

from adserve.domain.ads import Ad
from adserve.domain.time import rfc3339
from adserve.selection.decision import Decision, Placement

ADS_ENCODED_MAX = 20_000


_PLACEMENT = (
    b'{"position":%d,"ticket":"%b","expires_at":"%b","ad":%b,"urls":{"impression":"%b/i.gif?e=%b",'
    b'"click":"%b/r?e=%b","hide":"%b/e.gif?e=%b.hide","report":"%b/e.gif?e=%b.report"}}'
)
"""Nothing in it needs to be escaped: tickets are base64url, and the base comes escaped."""


class PlacementEncoder:
    """`base_url` is what the URLs in an answer begin with."""

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url
        self._base = orjson.dumps(base_url)[1:-1]
        self._ads: dict[Ad, bytes] = {}

    def decision(self, decision: Decision) -> bytes:
        placed = decision.placements
        expires_at = _expiry(placed[0]) if placed else b""  # one decision, one expiry
        answer: dict[str, Any] = {
            "decision": decision.decision,
            "placements": [orjson.Fragment(self._placement(placement, expires_at)) for placement in placed],
            "no_fill": decision.no_fill,
        }
        if decision.explanation is not None:
            answer["explanation"] = decision.explanation
        return orjson.dumps(answer)

    def placement(self, placement: Placement) -> bytes:
        return self._placement(placement, _expiry(placement))

    def _placement(self, placement: Placement, expires_at: bytes) -> bytes:
        token, base = placement.token.encode(), self._base
        ad = self._ads.get(placement.ad) or self._encode(placement.ad)
        urls = (base, token, base, token, base, token, base, token)
        return _PLACEMENT % (placement.position, token, expires_at, ad, *urls)

    def _encode(self, ad: Ad) -> bytes:
        creative = ad.creative
        encoded = orjson.dumps(
            {
                "id": ad.id,
                "campaign": ad.campaign.id,
                "advertiser": {"id": ad.advertiser, "name": ad.advertiser_name},
                "creative": {
                    "id": creative.id,
                    "kind": creative.kind,
                    "media_url": f"{self._base_url}/media/{creative.media}",
                    "width": creative.width,
                    "height": creative.height,
                    "headline": creative.headline,
                    "body": creative.body,
                    "call_to_action": creative.call_to_action,
                },
            }
        )
        if len(self._ads) >= ADS_ENCODED_MAX:
            self._ads.clear()  # old snapshots' ads are never asked for again
        self._ads[ad] = encoded
        return encoded


def _expiry(placement: Placement) -> bytes:
    return rfc3339(placement.ticket.expires_at_ms).encode()
