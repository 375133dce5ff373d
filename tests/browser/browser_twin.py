"""The demo's page over a service of a few lines: for looking at the page, and for feeds that no honest service sends."""

import asyncio
import hashlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import aiohttp
import orjson
from aiohttp import web

from adserve.catalogue.snapshot import Snapshot
from adserve.domain.rollouts import SurfaceRollout
from adserve.pages.demo.handlers import DemoPages
from adserve.pages.demo.service import Service
from adserve.rollout.assignment import bucket_of
from adserve.simulation.creatives import draw_creative
from adserve.simulation.onlookers import Harm
from adserve.simulation.seed import BRANDS
from adserve.simulation.upstream import sample_feed
from adserve.web.problems import problems

GROUP = "status"
ADS_EVERY = 5
CAST = [(brand, campaign) for brand in BRANDS for campaign in brand.campaigns]


class Twin:
    """`spoil` changes a feed before it leaves."""

    def __init__(self, spoil: Callable[[dict[str, Any]], None] = lambda _: None) -> None:
        self.spoil = spoil
        self.percent_bp = 10_000
        self.paused = False
        self.events: list[dict[str, Any]] = []
        self.spent = [0] * len(CAST)
        self.released: list[str] = []
        self.hidden: set[int] = set()
        self.decisions: dict[str, dict[str, Any]] = {}

    @property
    def view(self) -> Any:
        rollouts = {"status": SurfaceRollout(percent_bp=self.percent_bp)}
        return SimpleNamespace(paused=self.paused, snapshot=Snapshot(1, (), rollouts))

    def explanation(self, viewer: str) -> dict[str, Any] | None:
        return self.decisions.get(viewer)

    async def newest_events(self, limit: int) -> list[dict[str, Any]]:
        return self.events[::-1][:limit]

    async def campaign_money(self) -> list[dict[str, Any]]:
        return [
            {
                "campaign": index,
                "name": campaign.name,
                "advertiser_name": brand.name,
                "spent_micros": self.spent[index],
                "daily_micros": campaign.daily_micros,
                "currency": "USD",
            }
            for index, (brand, campaign) in enumerate(CAST)
        ]

    async def feed(self, request: web.Request) -> web.Response:
        viewer = request.headers["X-Adserve-Viewer"]
        feed = sample_feed(viewer, "/demo/art")
        bucket = bucket_of(GROUP, viewer)
        admitted = bucket < self.percent_bp and not self.paused
        placed = self._place(feed["items"], bucket) if admitted else []
        reason = "rollout_paused" if self.paused else "not_in_rollout"
        self.decisions[viewer] = {
            "rollout": {"bucket": bucket, "admitted_below": self.percent_bp, "in_rollout": admitted},
            "ads": [_considered(index, position) for position, index in placed]
            + [_considered(index, None) for index in (1, 4, 6)][: 3 * admitted],
            "ads_left_off": 0,
            "decision": str(uuid4()),
            "funnel": dict.fromkeys(("eligible", "targeted", "above_floor"), len(CAST))
            | dict.fromkeys(("in_budget", "under_cap", "placed"), len(placed)),
            "no_fill": None if placed else reason,
            "placed": [{"ad": index, "billable": "impression", "model": "prior"} for _, index in placed],
        }
        self.spoil(feed)
        return web.Response(body=orjson.dumps(feed), content_type="application/json")

    def _place(self, items: list[dict[str, Any]], bucket: int) -> list[tuple[int, int]]:
        turns = [at for at in range(3, len(items)) if items[at]["author"] != items[at - 1]["author"]]
        placed: list[tuple[int, int]] = []
        for position in turns:
            index = (bucket + 5 * len(placed)) % len(CAST)
            if (not placed or position - placed[-1][0] >= ADS_EVERY) and index not in self.hidden:
                placed.append((position, index))
        for done, (position, index) in enumerate(placed):
            items.insert(position + done, _ad(index, position))
        return placed

    async def event(self, request: web.Request) -> web.Response:
        ticket, _, kind = request.query["e"].rpartition(".")
        self.record(ticket, kind)
        if kind == "click":
            raise web.HTTPFound("/demo/visit/" + CAST[int(ticket.split("-")[0])][0].slug)
        return web.Response(body=b"GIF89a", content_type="image/gif")

    async def events_call(self, request: web.Request) -> web.Response:
        for event in (await request.json())["events"]:
            self.record(event["ticket"], event["kind"])
        return web.json_response({"results": [{"outcome": "recorded"}]})

    async def release(self, request: web.Request) -> web.Response:
        self.released += (await request.json())["tickets"]
        return web.json_response({})

    def record(self, ticket: str, kind: str) -> None:
        index = int(ticket.split("-", maxsplit=1)[0])
        brand, campaign = CAST[index]
        billed = campaign.bid_model == ("cpc" if kind == "click" else "cpm") and kind in {
            "impression",
            "click",
        }
        price = campaign.bid_micros // (1 if kind == "click" else 1_000) * billed
        self.spent[index] += price
        if kind == "hide":
            self.hidden |= {at for at, (other, _) in enumerate(CAST) if other is brand}
        self.events.append(
            {
                "event": str(uuid4()),
                "ticket": ticket,
                "kind": kind,
                "outcome": "recorded" if billed else "unbilled_kind",
                "advertiser_name": brand.name,
                "campaign_name": campaign.name,
                "billed_micros": price,
                "currency": "USD",
                "received_at": "2026-05-04T10:20:30.123Z",
            }
        )

    async def rollout(self, request: web.Request) -> web.Response:
        if request.method == "PUT":
            self.percent_bp = round((await request.json())["surfaces"]["status"]["percent"] * 100)
        else:
            self.paused = request.path.endswith("pause")
        return web.json_response({"applied": 1, "replicas": 1})

    async def media(self, request: web.Request) -> web.Response:
        index = int(request.match_info["sha256"], 16)
        campaign = CAST[index][1]
        drawn = await asyncio.to_thread(draw_creative, campaign.design, campaign.palette, index)
        return web.Response(body=drawn, content_type="image/webp")


def _ad(index: int, position: int) -> dict[str, Any]:
    brand, campaign = CAST[index]
    ticket = f"{index}-{uuid4()}"
    creative = {
        "id": index,
        "kind": "image",
        "media_url": f"/media/{index:064x}",
        "width": 1080,
        "height": 1920,
        "headline": campaign.headline,
        "body": campaign.body,
        "call_to_action": campaign.call_to_action,
    }
    advertiser = {"id": BRANDS.index(brand), "name": brand.name}
    return {
        "type": "ad",
        "position": position,
        "ticket": ticket,
        "ad": {"id": index, "campaign": index, "advertiser": advertiser, "creative": creative},
        "urls": {kind: f"/{path}?e={ticket}.{kind}" for kind, path in URLS.items()},
    }


URLS = {"impression": "i.gif", "click": "r", "hide": "e.gif", "report": "e.gif"}


def _considered(index: int, position: int | None) -> dict[str, Any]:
    campaign = CAST[index][1]
    share = hashlib.blake2b(bytes([index]), digest_size=1).digest()[0] / 255
    bid = {"model": campaign.bid_model, "micros": campaign.bid_micros, "currency": "USD"}
    shown = {"ad": index, "campaign": index, "click_rate": 0.012 + 0.03 * share, "bid": bid}
    shown["value_micros"] = round(4_000 + 9_000 * share) + (6_000 if position is not None else 0)
    if position is None:
        return shown | {"lost": {"reason": "outbid" if share < 0.6 else "frequency_capped"}}
    caps = [{"key": f"c{index}", "count": 2, "window_s": 3_600, "left": 1}]
    return shown | {"position": position, "price_micros": 8_000, "caps": caps, "lost": None}


def twin_app(twin: Twin, session: aiohttp.ClientSession, base_url: str) -> web.Application:
    app = web.Application(middlewares=[problems])
    service = Service(session, base_url, "feed-key", "operator-key")
    DemoPages(service, twin, twin, lambda: twin.view, GROUP, Harm()).add_to(app)
    app.router.add_get("/v1/feed/status", twin.feed)
    app.router.add_post("/v1/events", twin.events_call)
    app.router.add_post("/v1/tickets/release", twin.release)
    app.router.add_put("/v1/rollout", twin.rollout)
    app.router.add_post("/v1/rollout/{switch:pause|resume}", twin.rollout)
    app.router.add_get("/media/{sha256}", twin.media)
    for path in ("/i.gif", "/e.gif", "/r"):
        app.router.add_route("*", path, twin.event)
    return app
