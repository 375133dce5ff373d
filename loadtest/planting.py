"""Puts the market into a service, through its own API."""

from collections.abc import Mapping, Sequence
from typing import Any

import aiohttp

from adserve.simulation.seed import Api
from loadtest.generator import HOST
from loadtest.market import LARGE_MICROS, Brand, money
from loadtest.servers import Ready


async def plant(service: Ready, brands: Sequence[Brand]) -> None:
    """Advertisers with money, their campaigns with an ad each, and everybody in the rollout."""
    async with aiohttp.ClientSession() as session:
        api = Api(session, f"http://{HOST}:{service.port}", service.key)
        for brand in brands:
            advertiser = (await api.create("/v1/advertisers", {"name": brand.name}, brand.name))["id"]
            deposit = {"amount": money(LARGE_MICROS * len(brand.campaigns))}
            await api.create(f"/v1/advertisers/{advertiser}/deposits", deposit, f"{brand.name} deposit")
            for campaign in brand.campaigns:
                await _plant_campaign(api, {"advertiser": advertiser, **campaign}, service.media)
        await _admit_everybody(api)


async def _plant_campaign(api: Api, campaign: Mapping[str, Any], media: str) -> None:
    name = campaign["name"]
    creative = {
        "advertiser": campaign["advertiser"],
        "kind": "image",
        "headline": f"{name}: all that you could want",
        "body": "Made by hand, in small numbers, for people who look twice.",
        "call_to_action": "shop_now",
        "landing_url": "https://example.com/landing",
        "media": media,
    }
    ad = {
        "campaign": (await api.create("/v1/campaigns", campaign, name))["id"],
        "creative": (await api.create("/v1/creatives", creative, f"{name} creative"))["id"],
    }
    await api.create("/v1/ads", ad, f"{name} ad")


async def _admit_everybody(api: Api) -> None:
    headers = {"Authorization": f"Bearer {api.key}"}
    rollout = {"surfaces": {"status": {"percent": 100}}}
    async with api.session.put(f"{api.base_url}/v1/rollout", json=rollout, headers=headers) as answer:
        answer.raise_for_status()
