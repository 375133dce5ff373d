"""A decision as JSON. Ads repeat from answer to answer, so each is encoded once."""

import orjson

from adserve.domain.ads import Ad
from adserve.domain.time import rfc3339
from adserve.selection.decision import Decision, Placement

ADS_ENCODED_MAX = 20_000


class PlacementEncoder:
    """`base_url` is what the URLs in an answer begin with."""

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url
        base = orjson.dumps(base_url)[1:-1]
        self._urls = tuple(
            [
                b',"urls":{"impression":"%b/i.gif?e=' % base,
                b'","click":"%b/r?e=' % base,
                b'","hide":"%b/e.gif?e=' % base,
                b'.hide","report":"%b/e.gif?e=' % base,
            ]
        )
        self._ads: dict[Ad, bytes] = {}

    def decision(self, decision: Decision) -> bytes:
        """Put together from its parts, none of which needs to be escaped; the order is that of the API's `SlotsAnswer`."""
        placed, why = decision.placements, decision.no_fill
        expires_at = _expiry(placed[0]) if placed else b""  # one decision, one expiry
        placements = b",".join([self._placement(placement, expires_at) for placement in placed])
        explanation = decision.explanation
        return b'{"decision":"%b","placements":[%b],"no_fill":%b%b}' % (
            str(decision.decision).encode(),
            placements,
            b"null" if why is None else b'"%b"' % why.encode(),
            b"" if explanation is None else b',"explanation":' + orjson.dumps(explanation),
        )

    def placement(self, placement: Placement) -> bytes:
        return self._placement(placement, _expiry(placement))

    def _placement(self, placement: Placement, expires_at: bytes) -> bytes:
        """Tickets are base64url."""
        token = placement.token.encode()
        ad = self._ads.get(placement.ad) or self._encode(placement.ad)
        impression, click, hide, report = self._urls
        return b"".join(
            (
                b'{"position":%d,"ticket":"' % placement.position,
                token,
                b'","expires_at":"',
                expires_at,
                b'","ad":',
                ad,
                impression,
                token,
                click,
                token,
                hide,
                token,
                report,
                token,
                b'.report"}}',
            )
        )

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
