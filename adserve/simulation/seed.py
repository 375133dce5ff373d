"""The cast of the demo: invented brands, their campaigns and creatives, planted through the public API."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import aiohttp

from adserve.simulation.canvas import SHEET_HEIGHT, SHEET_WIDTH
from adserve.simulation.creatives import CONTENT_TYPE, Palette, draw_creative

CURRENCY = "USD"
STARTS_AT = "2026-01-01T00:00:00Z"
"""Fixed, so that a planting that was cut short can ask for the very same things again."""

LISTED_MAX = 100
_TOTAL_DAYS = 30
_HOUR_S = 3_600
_DAY_S = 86_400

PutMedia = Callable[[bytes, str, int, int], Awaitable[str]]
"""Stores bytes of a content type, width and height; answers their SHA-256."""


class SeedError(RuntimeError):
    """The service refused a part of the cast."""


class SeedCampaign(NamedTuple):
    """`bid_micros` is per 1,000 impressions for a CPM campaign and per click for a CPC one."""

    name: str
    headline: str
    body: str
    call_to_action: str
    design: str
    palette: Palette
    bid_model: str
    bid_micros: int
    daily_micros: int
    caps: tuple[Mapping[str, Any], ...]
    targeting: Mapping[str, Any] = {}
    priority: str = "auction"
    pacing: str = "asap"
    separation: tuple[str, ...] = ()


class Brand(NamedTuple):
    slug: str
    name: str
    tagline: str
    hue: int
    deposit_micros: int
    campaigns: tuple[SeedCampaign, ...]


def _cap(scope: str, count: int, window_s: int) -> dict[str, Any]:
    return {"scope": scope, "count": count, "window_s": window_s}


_TWICE_AN_HOUR = (_cap("campaign", 2, _HOUR_S),)
_THRICE_A_DAY = (_cap("campaign", 3, _DAY_S), _cap("advertiser", 5, _DAY_S))

BRANDS = (
    Brand("kopi-rana", "Kopi Rana", "Coffee from the slopes, roasted on Tuesdays", 24, 60_000_000, (
        SeedCampaign(
            "Pagi - morning roast", "Pagi dimulai di sini", "Biji tunggal dari lereng Rana, disangrai tiap Selasa.",
            "order_now", "coffee", Palette("#f4d9b8", "#7a4a2b", "#f7f1e8", "#e5793a"), "cpm", 14_000_000, 900_000,
            _TWICE_AN_HOUR, {"countries": ["ID"], "languages": ["id"]}, separation=("drinks",),
        ),
        SeedCampaign(
            "Slow cup, worldwide", "Slow down. Pour over.", "Beans that travel less than you do. First bag on us.",
            "get_offer", "coffee", Palette("#12302b", "#0b1f1c", "#e9e2d0", "#3fb28a"), "cpm", 9_000_000, 6_000_000,
            _THRICE_A_DAY, separation=("drinks",),
        ),
    )),
    Brand("tarn-tread", "Tarn & Tread", "Shoes for the path that is not on the map", 152, 50_000_000, (
        SeedCampaign(
            "Ridge runner", "The summit is a bonus", "Trail shoes that forgive wet stone and late starts.",
            "shop_now", "trail", Palette("#f9c58d", "#2d4a3e", "#3f7d58", "#f28a4b"), "cpc", 420_000, 5_000_000,
            _THRICE_A_DAY, {"countries": ["DE", "GB", "US"], "interests": ["hiking", "sport"]},
        ),
        SeedCampaign(
            "First snow", "Grip for the first snow", "Studs out, shoulders down. Free returns until spring.",
            "shop_now", "trail", Palette("#a9d3e8", "#1f3b57", "#2f7d8c", "#f4d35e"), "cpm", 8_000_000, 1_200_000,
            _TWICE_AN_HOUR, {"countries": ["DE", "GB"]},
        ),
    )),
    Brand("zephyra", "Zephyra", "Headphones that know when to be quiet", 262, 80_000_000, (
        SeedCampaign(
            "Night mode", "Hear the room disappear", "Forty hours of quiet, folded into 190 grams.",
            "learn_more", "headphones", Palette("#1a1036", "#0b0718", "#7b4dff", "#ff5fa2"), "cpm", 12_000_000,
            8_000_000, _TWICE_AN_HOUR, {"exclude": {"platforms": ["web"]}}, separation=("audio",),
        ),
        SeedCampaign(
            "Studio week", "Made for the second listen", "Studio pairs at the price of a concert ticket, this week.",
            "shop_now", "headphones", Palette("#f3efe9", "#cfc6ba", "#22252d", "#ff7a45"), "cpc", 510_000, 4_000_000,
            _THRICE_A_DAY, {"interests": ["music"]}, separation=("audio",),
        ),
    )),
    Brand("saltmarsh", "Saltmarsh", "Skin care for people who go outside", 190, 40_000_000, (
        SeedCampaign(
            "Fifty, sheer", "All day, all salt", "SPF 50 that stays on when you go in. Reef safe.",
            "shop_now", "bottle", Palette("#bfe8ef", "#0f7c8c", "#fbfaf5", "#ffb84d"), "cpm", 10_000_000, 3_000_000,
            _TWICE_AN_HOUR, {"countries": ["BR", "ID", "NG", "US"], "age": {"min": 18, "max": 44}},
        ),
        SeedCampaign(
            "Depois do sol", "Depois do sol", "Loção que acalma a pele e cheira a chuva.",
            "order_now", "bottle", Palette("#ffd9cf", "#c8553d", "#fff8f0", "#ff8a70"), "cpc", 300_000, 2_000_000,
            _THRICE_A_DAY, {"countries": ["BR"], "languages": ["pt"]},
        ),
    )),
    Brand("olu-finch", "Olu & Finch", "Clay, light and very few things", 14, 40_000_000, (
        SeedCampaign(
            "The quiet shelf", "Room for one good thing", "Hand-thrown stoneware in small numbers. Made to be used.",
            "shop_now", "vases", Palette("#efe3d3", "#a9714b", "#c9643b", "#e8b48a"), "cpm", 7_000_000, 5_000_000,
            _TWICE_AN_HOUR, pacing="even",
        ),
    )),
    Brand("noodle-yard", "Noodle Yard", "Broth since four in the morning", 4, 30_000_000, (
        SeedCampaign(
            "Eighteen hours", "Eighteen hours. Four minutes.", "That's the broth, and that's how long it will last.",
            "order_now", "noodles", Palette("#b3261e", "#3d0907", "#1c1c22", "#f2c14e"), "cpc", 260_000, 3_000_000,
            _TWICE_AN_HOUR, {"countries": ["ID", "IN", "DE", "US"], "interests": ["food"]},
        ),
        SeedCampaign(
            "Rainy day bowl", "It is raining somewhere", "Delivered hot under thirty minutes, egg included.",
            "order_now", "noodles", Palette("#123a4a", "#07202b", "#f1ede4", "#e76f51"), "cpm", 16_000_000, 600_000,
            (_cap("campaign", 4, _HOUR_S),), {"platforms": ["android", "ios"]},
        ),
    )),
    Brand("lingofern", "Lingofern", "Ten minutes a day, in any language", 140, 40_000_000, (
        SeedCampaign(
            "Say it badly", "Say it badly. Say it.", "Ten minutes a day with people who want to understand you.",
            "install_app", "fern", Palette("#d8f3dc", "#1b4332", "#ffffff", "#52b788"), "cpc", 350_000, 4_000_000,
            _THRICE_A_DAY, {"age": {"min": 16, "max": 35}},
        ),
        SeedCampaign(
            "Evening class", "Your evening, in Portuguese", "Live classes after work. The first one is free.",
            "sign_up", "fern", Palette("#fde2ff", "#3c1361", "#ffffff", "#b86bff"), "cpm", 6_000_000, 4_000_000,
            _TWICE_AN_HOUR, {"languages": ["en", "de", "hi"]}, pacing="even",
        ),
    )),
    Brand("northlight-rail", "Northlight Rail", "Fall asleep here, wake up there", 228, 90_000_000, (
        SeedCampaign(
            "Sleeper, guaranteed", "Fall asleep in Berlin", "Wake up by the sea. Sleepers from 49, breakfast included.",
            "book_now", "train", Palette("#0c1440", "#0a0f2a", "#2e5bff", "#ffb3c7"), "cpm", 18_000_000, 2_500_000,
            (_cap("campaign", 1, _HOUR_S),), {"countries": ["DE", "GB"]}, priority="guaranteed",
        ),
    )),
)  # fmt: skip  # laid out as rows


class Api(NamedTuple):
    """The service as its callers reach it, with an operator's key."""

    session: aiohttp.ClientSession
    base_url: str
    key: str

    async def items(self, path: str) -> list[dict[str, Any]]:
        """The first page, which holds all of a cast this small."""
        headers = {"Authorization": f"Bearer {self.key}"}
        params = {"limit": LISTED_MAX}
        async with self.session.get(f"{self.base_url}{path}", params=params, headers=headers) as answer:
            listed: dict[str, Any] = await answer.json(content_type=None)
            if answer.status != 200:
                raise SeedError(f"GET {path}: {answer.status} {listed}")
            return list(listed["items"])

    async def create(self, path: str, body: Mapping[str, Any], once: str) -> dict[str, Any]:
        """`once` names the thing, so that a second planting finds it instead of making another."""
        headers = {"Authorization": f"Bearer {self.key}", "Idempotency-Key": once}
        async with self.session.post(f"{self.base_url}{path}", json=body, headers=headers) as answer:
            created: dict[str, Any] = await answer.json(content_type=None)
            if answer.status >= 300:
                raise SeedError(f"POST {path} ({once}): {answer.status} {created}")
            return created

    async def change(self, path: str, changes: Mapping[str, Any]) -> None:
        """Whatever version it has."""
        headers = {"Authorization": f"Bearer {self.key}", "If-Match": "*"}
        async with self.session.patch(f"{self.base_url}{path}", json=changes, headers=headers) as answer:
            if answer.status != 200:
                raise SeedError(f"PATCH {path}: {answer.status} {await answer.text()}")


async def plant(api: Api, put_media: PutMedia, landing_base: str) -> int:
    """Creates what is missing of the cast, also after a planting that was cut short, and leads all of it below
    `landing_base`; answers how many ads it made."""
    await _lead_to(api, landing_base)
    planted = await _planted(api)
    ads = 0
    for brand in BRANDS:
        missing = [campaign for campaign in brand.campaigns if campaign.name not in planted]
        if not missing:
            continue
        advertiser = (await api.create("/v1/advertisers", {"name": brand.name}, f"demo-{brand.slug}"))["id"]
        deposit = {"amount": _money(brand.deposit_micros), "reference": "demo"}
        await api.create(f"/v1/advertisers/{advertiser}/deposits", deposit, f"demo-{brand.slug}-deposit")
        for campaign in missing:
            await _plant_campaign(api, put_media, campaign, advertiser, f"{landing_base}/{brand.slug}")
            ads += 1
    return ads


async def _lead_to(api: Api, landing_base: str) -> None:
    """The service may have had another address when the creatives were planted."""
    urls = {urlsplit(url).path: url for url in (f"{landing_base}/{brand.slug}" for brand in BRANDS)}
    for creative in await api.items("/v1/creatives"):
        planted = creative["landing_url"]
        url = urls.get(urlsplit(planted).path, planted)
        if url != planted and creative["status"] != "archived":
            await api.change(f"/v1/creatives/{creative['id']}", {"landing_url": url})


async def _planted(api: Api) -> set[str]:
    """The names of the campaigns that have an ad already."""
    advertised = {ad["campaign"] for ad in await api.items("/v1/ads")}
    return {campaign["name"] for campaign in await api.items("/v1/campaigns") if campaign["id"] in advertised}


async def _plant_campaign(
    api: Api, put_media: PutMedia, campaign: SeedCampaign, advertiser: int, landing_url: str
) -> None:
    once = f"demo-{advertiser}-{campaign.name}"
    drawn = await asyncio.to_thread(draw_creative, campaign.design, campaign.palette, len(campaign.name))
    media = await put_media(drawn, CONTENT_TYPE, SHEET_WIDTH, SHEET_HEIGHT)
    creative_body = creative_json(campaign, advertiser, media, landing_url)
    # The address may be another one when a planting that was cut short is finished.
    creative = (await api.create("/v1/creatives", creative_body, f"{once}-creative-{landing_url}"))["id"]
    campaign_body = campaign_json(campaign, advertiser)
    created = (await api.create("/v1/campaigns", campaign_body, f"{once}-campaign"))["id"]
    await api.create("/v1/ads", {"campaign": created, "creative": creative}, f"{once}-ad")


def campaign_json(campaign: SeedCampaign, advertiser: int) -> dict[str, Any]:
    clicks = campaign.bid_model == "cpc"
    return {
        "advertiser": advertiser,
        "name": campaign.name,
        "objective": "traffic" if clicks else "awareness",
        "starts_at": STARTS_AT,
        "time_zone": "UTC",
        "bid": {"model": campaign.bid_model, "price": _money(campaign.bid_micros)},
        "billable": "click" if clicks else "impression",
        "budget": {
            "daily": _money(campaign.daily_micros),
            "total": _money(campaign.daily_micros * _TOTAL_DAYS),
        },
        "pacing": campaign.pacing,
        "priority": campaign.priority,
        "targeting": dict(campaign.targeting),
        "caps": [dict(cap) for cap in campaign.caps],
        "separation": list(campaign.separation),
    }


def creative_json(campaign: SeedCampaign, advertiser: int, media: str, landing_url: str) -> dict[str, Any]:
    return {
        "advertiser": advertiser,
        "kind": "image",
        "headline": campaign.headline,
        "body": campaign.body,
        "call_to_action": campaign.call_to_action,
        "landing_url": landing_url,
        "media": media,
    }


def _money(micros: int) -> dict[str, Any]:
    return {"micros": micros, "currency": CURRENCY}
