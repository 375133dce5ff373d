"""The campaigns of a log, set up through the service's own API: each has a creative and an ad of its own, and an advertiser
unless the log is one advertiser's."""

import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from PIL import Image

from adserve.domain.ads import Cap
from adserve.domain.time import rfc3339
from adserve.simulation.logs import LogMapping, Row
from adserve.simulation.seed import Api, PutMedia

WIDTH, HEIGHT = 1080, 1920

IMPRESSIONS_PREPAID_FACTOR = 2
"""Every campaign could win every row, while leases of an earlier day still wait for their tickets to expire."""
IMPRESSIONS_PREPAID_MIN = 1_000


class LogCampaign(NamedTuple):
    """`bid_micros` is per 1,000 impressions."""

    key: str
    bid_micros: int


def campaigns_of(rows: Iterable[Row], mapping: LogMapping) -> list[LogCampaign]:
    """By key. A campaign bids the most that it ever bid in the log, or else what the mapping says."""
    default_micros = mapping.campaigns.bid * mapping.price_unit_micros
    bids: dict[str, int] = {}
    for row in rows:
        bid = default_micros if row.bid_micros is None else row.bid_micros
        bids[row.campaign] = max(bid, bids.get(row.campaign, 0))
    return [LogCampaign(key, bids[key]) for key in sorted(bids)]


async def set_up(
    api: Api,
    put_media: PutMedia,
    campaigns: Sequence[LogCampaign],
    mapping: LogMapping,
    caps: Sequence[Cap],
    *,
    starts_at_ms: int,
    requests: int,
) -> dict[int, str]:
    """Answers the key of each campaign by the id that it was given. `requests` bounds what each may have to pay."""
    medium = await put_media(_picture(), "image/webp", WIDTH, HEIGHT)
    starts_at = rfc3339(starts_at_ms)
    keys: dict[int, str] = {}
    for key, bid_micros in campaigns:
        name = mapping.advertiser or f"Advertiser of {key}"
        owner = {"name": name, "time_zone": mapping.time_zone}
        created = await api.create("/v1/advertisers", owner, f"{mapping.advertiser or key}-advertiser")
        advertiser = created["id"]
        impressions = max(requests, IMPRESSIONS_PREPAID_MIN) * IMPRESSIONS_PREPAID_FACTOR
        prepaid = _money(impressions * bid_micros // 1_000, mapping)
        await api.create(f"/v1/advertisers/{advertiser}/deposits", {"amount": prepaid}, f"{key}-deposit")
        creative = await api.create("/v1/creatives", _creative(key, advertiser, medium), f"{key}-creative")
        body = _campaign(key, bid_micros, advertiser, mapping, caps) | {"starts_at": starts_at}
        campaign = await api.create("/v1/campaigns", body, f"{key}-campaign")
        await api.create("/v1/ads", {"campaign": campaign["id"], "creative": creative["id"]}, f"{key}-ad")
        keys[campaign["id"]] = key
    return keys


def _creative(key: str, advertiser: int, medium: str) -> dict[str, Any]:
    return {
        "advertiser": advertiser,
        "kind": "image",
        "headline": f"Campaign {key}",
        "body": "",
        "call_to_action": "learn_more",
        "landing_url": "https://advertiser.example/",
        "media": medium,
    }


def _campaign(
    key: str, bid_micros: int, advertiser: int, mapping: LogMapping, caps: Sequence[Cap]
) -> dict[str, Any]:
    unit_micros, given = mapping.price_unit_micros, mapping.campaigns
    matched = mapping.campaign_matches
    return {
        "advertiser": advertiser,
        "name": f"Campaign {key}",
        "time_zone": mapping.time_zone,
        "bid": {"model": "cpm", "price": _money(bid_micros, mapping)},
        "billable": "impression",
        "budget": {
            "daily": given.daily_budget and _money(given.daily_budget * unit_micros, mapping),
            "total": given.total_budget and _money(given.total_budget * unit_micros, mapping),
        },
        "pacing": "asap",
        "targeting": {"custom": {matched: [key]}} if matched else {},
        "caps": [{"scope": cap.scope, "count": cap.count, "window_s": cap.window_s} for cap in caps],
    }


def _money(micros: int, mapping: LogMapping) -> Mapping[str, Any]:
    return {"micros": micros, "currency": mapping.currency}


def _picture() -> bytes:
    """Nobody looks at a replay, but an ad has a picture."""
    file = io.BytesIO()
    Image.new("RGB", (WIDTH, HEIGHT), "#c9d1d9").save(file, "WEBP")
    return file.getvalue()
