"""The console over a service whose advertisers go on while a person reviews."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from aiohttp.test_utils import TestServer
from service import SURFACES, Service, desks, running

from adserve.bootstrap.core import system_clock
from adserve.database.pools import Pools
from adserve.pages.console.handlers import ConsolePages
from adserve.simulation.canvas import SHEET_HEIGHT, SHEET_WIDTH
from adserve.simulation.creatives import CONTENT_TYPE, draw_creative
from adserve.simulation.seed import BRANDS
from adserve.store.sessions import Sessions
from adserve.web.app import build_app


class Room(NamedTuple):
    """The console at `url`, and what advertisers do meanwhile."""

    service: Service
    url: str
    keys: list[str]

    async def make(self, number: int, **more: Any) -> int:
        """A creative of the brand of that number; answers its id."""
        brand = BRANDS[number]
        of = brand.campaigns[0]
        drawn = await asyncio.to_thread(draw_creative, of.design, of.palette, number)
        content_type = "video/mp4" if more.get("kind") == "video" else CONTENT_TYPE
        medium = await self.service.media.put(drawn, content_type, SHEET_WIDTH, SHEET_HEIGHT)
        body = {
            "kind": "image",
            "media": medium,
            "headline": of.headline,
            "body": of.body,
            "call_to_action": of.call_to_action,
            "landing_url": f"https://{brand.slug}.example/",
        }
        made = await self.service.made("/v1/creatives", body | more, key=self.keys[number])
        return int(made["id"])

    async def edit(self, creative: int, number: int, **changes: Any) -> None:
        path = f"/v1/creatives/{creative}"
        reply = await self.service.call("PATCH", path, changes, key=self.keys[number], If_Match="*")
        assert reply.status == 200, reply

    async def review(self, creative: int) -> tuple[str, str | None]:
        review = (await self.service.call("GET", f"/v1/creatives/{creative}")).body["review"]
        return review["state"], review["reason"]


@asynccontextmanager
async def serve_reviews(pools: Pools, home: Path) -> AsyncIterator[Room]:
    async with running(pools, system_clock, home) as service:
        app = build_app(service.operations, service.auth, body_max_bytes=200_000, version="1")
        sessions = Sessions(desks(pools)[0])
        ConsolePages(service.operations, service.auth, sessions, SURFACES, system_clock).add_to(app)
        keys = []
        for brand in BRANDS[:3]:
            made = (await service.made("/v1/advertisers", {"name": brand.name}))["id"]
            keys.append(await service.issue("advertiser", advertiser=made))
        async with TestServer(app, host="127.0.0.1") as served:
            yield Room(service, str(served.make_url("")).rstrip("/"), keys)
