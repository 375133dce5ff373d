"""A decision as JSON. Ads repeat from answer to answer, so each is encoded once."""

from typing import Any

import orjson

from adserve.domain.ads import Ad
from adserve.domain.time import rfc3339
from adserve.selection.decision import Decision, Placement

ADS_ENCODED_MAX = 20_000


class PlacementEncoder:
    """`base_url` is what the URLs in an answer begin with."""

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url
        self._ads: dict[Ad, orjson.Fragment] = {}

    def decision(self, decision: Decision) -> bytes:
        placed = decision.placements
        expires_at = rfc3339(placed[0].ticket.expires_at_ms) if placed else ""  # one decision, one expiry
        answer: dict[str, Any] = {
            "decision": decision.decision,
            "placements": [self._placement(placement, expires_at) for placement in placed],
            "no_fill": decision.no_fill,
        }
        if decision.explanation is not None:
            answer["explanation"] = decision.explanation
        return orjson.dumps(answer)

    def placement(self, placement: Placement) -> bytes:
        return orjson.dumps(self._placement(placement, rfc3339(placement.ticket.expires_at_ms)))

    def _placement(self, placement: Placement, expires_at: str) -> dict[str, Any]:
        token, base_url = placement.token, self._base_url
        return {
            "position": placement.position,
            "ticket": token,
            "expires_at": expires_at,
            "ad": self._ads.get(placement.ad) or self._encode(placement.ad),
            "urls": {
                "impression": f"{base_url}/i.gif?e={token}",
                "click": f"{base_url}/r?e={token}",
                "hide": f"{base_url}/e.gif?e={token}.hide",
                "report": f"{base_url}/e.gif?e={token}.report",
            },
        }

    def _encode(self, ad: Ad) -> orjson.Fragment:
        creative = ad.creative
        fragment = orjson.Fragment(
            orjson.dumps(
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
        )
        if len(self._ads) >= ADS_ENCODED_MAX:
            self._ads.clear()  # old snapshots' ads are never asked for again
        self._ads[ad] = fragment
        return fragment
