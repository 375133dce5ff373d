"""The service's HTTP edge over real parts and a real database, as a test drives it: no background task runs."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from aiohttp.test_utils import TestClient, TestServer
from multidict import CIMultiDictProxy

from adserve.access.keys import SECRET_BYTES, Scope, new_key
from adserve.accounting.invoices import Seller
from adserve.api.ads import Ads
from adserve.api.advertisers import Advertisers
from adserve.api.beacons import Beacons, Landings
from adserve.api.campaigns import Campaigns
from adserve.api.charges import Charges
from adserve.api.creatives import Creatives, MediaFiles, form_of
from adserve.api.decisions import Decisions as DecisionsApi
from adserve.api.delivery import Delivery
from adserve.api.diagnoses import Diagnoses
from adserve.api.estimates import Estimates
from adserve.api.events import EventsApi
from adserve.api.exports import Exports
from adserve.api.health import Health, Part
from adserve.api.impressions import Impressions
from adserve.api.invoices import Invoices
from adserve.api.keys import KeysApi
from adserve.api.outcomes import OutcomesApi
from adserve.api.placements import PlacementEncoder
from adserve.api.ramps import RampsApi
from adserve.api.reconciliation import ReconciliationApi
from adserve.api.reports import Reports
from adserve.api.reviews import Reviews
from adserve.api.rollout import RolloutApi
from adserve.api.slots import SlotsApi
from adserve.api.traffic import TrafficApi
from adserve.bootstrap.traffic import TrafficKeeper
from adserve.catalogue.refresh import Refresh
from adserve.catalogue.snapshot import EMPTY
from adserve.creatives.sandbox import Sandbox
from adserve.creatives.uploads import Uploads
from adserve.database import partitions
from adserve.database.pools import Pools
from adserve.domain.ads import Campaign
from adserve.domain.ids import AdvertiserId, KeyId
from adserve.domain.surfaces import Surface
from adserve.domain.time import DAY_MS, day_of, from_ms
from adserve.limits.counters import MemoryCounters
from adserve.limits.erased import Erased
from adserve.limits.hides import Hides
from adserve.limits.keeper import LeaseKeeper
from adserve.limits.leases import LeaseBook
from adserve.metering.intake import Intake
from adserve.metering.networks import NO_NETWORKS, decode_networks
from adserve.metering.origins import Origins
from adserve.metering.pseudonyms import Pseudonyms, ViewerSecrets
from adserve.metering.recorder import Recorder
from adserve.metering.tickets import Sealer, TicketKey
from adserve.metering.traffic import Traffic
from adserve.prediction.prior import Prior
from adserve.selection.funnel import Funnel
from adserve.selection.recording import Recording
from adserve.selection.slots import Bounds, Parts, Slots
from adserve.selection.state import LiveView, View
from adserve.simulation.caller import OUR_CLIENT
from adserve.store.catalogue import Catalogue
from adserve.store.decisions import Decisions
from adserve.store.desk import Desk
from adserve.store.funnel import FunnelStore
from adserve.store.journal import Journal
from adserve.store.keys import Keys
from adserve.store.ledger import Ledger
from adserve.store.media import Media
from adserve.store.outcomes import Outcomes
from adserve.store.spool import Spool
from adserve.store.spools import EventLog
from adserve.store.traffic import TrafficStore
from adserve.web.app import build_app
from adserve.web.auth import Auth
from adserve.web.operations import Operation
from adserve.web.sources import Sources

REPLICA = UUID(int=1)
SURFACES = {"status": Surface()}
SELLER = Seller(
    "Status Ads Ltd", ("1 Feed Street", "Dublin 2"), "IE1234567X", "IBAN IE29 AIBK 9311 5212 3456 78"
)
BODY_MAX_BYTES = 200_000
MEDIA_MAX_BYTES = 1_000_000
SPOOL_BYTES = 1_000_000
PIXEL = b"not looked into"
JSON = ("application/json", "application/problem+json")
LOOPBACK = b"127.0.0.0/8"
"""Whoever calls from here is a proxy to be believed."""
STARTS_AT = "2025-01-01T00:00:00Z"


class Checks(dict[str, Callable[[], Part]]):
    """What /readyz asks; a test puts in what it wants to see."""


@dataclass
class Service:
    """`client` speaks to it; `keys` has a secret for each scope that staff may have."""

    pools: Pools
    clock: Callable[[], int]
    client: TestClient[Any, Any]
    operations: list[Operation]
    auth: Auth
    refresh: Refresh
    live: LiveView
    keeper: LeaseKeeper
    landings: Landings
    recorder: Recorder
    media: Media
    checks: Checks
    recording: Recording
    funnel: Funnel
    rules: TrafficKeeper
    keys: dict[str, str] = field(default_factory=dict)

    async def issue(self, *scopes: str, advertiser: int | None = None, name: str = "test") -> str:
        new = new_key(secrets.token_bytes(SECRET_BYTES))
        owner = None if advertiser is None else AdvertiserId(advertiser)
        wanted = frozenset(map(Scope, scopes))
        await Keys(self.pools.operator).issue(new, name, wanted, owner, from_ms(self.clock()))
        await self.auth.refresh()
        return new.secret

    async def revoke(self, key: int) -> None:
        await Keys(self.pools.operator).revoke(KeyId(key), from_ms(self.clock()))

    async def call(
        self, method: str, path: str, body: Any = None, *, key: str | None = "operator", **headers: str
    ) -> "Reply":
        """`key` is a scope of `keys`, a secret, or None; underscores in a header's name stand for hyphens."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if key is not None:
            sent["Authorization"] = f"Bearer {self.keys.get(key, key)}"
        given: dict[str, Any] = {"data": body} if isinstance(body, bytes) else {"json": body}
        if isinstance(body, bytes):
            sent.setdefault("Content-Type", "application/json")
        given = {} if body is None else given
        async with self.client.request(method, path, headers=sent, allow_redirects=False, **given) as answer:
            raw = await answer.read()
            decoded = await answer.json(content_type=None) if answer.content_type in JSON else None
            return Reply(answer.status, decoded, answer.headers, raw)

    async def made(self, path: str, body: Any, **options: Any) -> dict[str, Any]:
        reply = await self.call("POST", path, body, **options)
        assert reply.status == 201, reply
        made: dict[str, Any] = reply.body
        return made

    async def plant(self, **campaign: Any) -> dict[str, int]:
        """An advertiser with money, and an ad that may be shown; answers their ids."""
        advertiser = (await self.made("/v1/advertisers", {"name": "Kopi Rana"}))["id"]
        amount = {"amount": {"micros": 1_000_000_000, "currency": "USD"}}
        await self.made(f"/v1/advertisers/{advertiser}/deposits", amount)
        campaign_id = (await self.made("/v1/campaigns", campaign_body(advertiser, **campaign)))["id"]
        creative = (await self.made("/v1/creatives", await self.creative_body(advertiser)))["id"]
        ad = (await self.made("/v1/ads", {"campaign": campaign_id, "creative": creative}))["id"]
        return {"advertiser": advertiser, "campaign": campaign_id, "creative": creative, "ad": ad}

    async def creative_body(self, advertiser: int, **more: Any) -> dict[str, Any]:
        media = await self.media.put(PIXEL, "image/png", 1080, 1920)
        return {
            "advertiser": advertiser,
            "kind": "image",
            "media": media,
            "headline": "Slow down.",
            "call_to_action": "shop_now",
            "landing_url": "https://example.com/kopi?a=1&b=%20",
        } | more

    async def go_live(self, percent: float = 100) -> None:
        """What the background tasks do: the rollout, the snapshot and the leases."""
        reply = await self.call("PUT", "/v1/rollout", {"surfaces": {"status": {"percent": percent}}})
        assert reply.status == 200, reply
        await self.step()

    async def step(self) -> None:
        now_ms = self.clock()
        await self.refresh.step(now_ms)
        await self.refresh.switch(now_ms)
        self.landings.learn(self.live.current().snapshot)
        await self.keeper.step(now_ms)


@dataclass(frozen=True)
class Reply:
    status: int
    body: Any
    headers: CIMultiDictProxy[str]
    raw: bytes

    @property
    def fields(self) -> list[str]:
        return [error["field"] for error in self.body.get("errors", ())]


def campaign_body(advertiser: int | None, **more: Any) -> dict[str, Any]:
    whose = {} if advertiser is None else {"advertiser": advertiser}
    return (
        whose
        | {
            "name": "Morning roast",
            "starts_at": STARTS_AT,
            "bid": {"model": "cpm", "price": {"micros": 2_000_000, "currency": "USD"}},
            "billable": "impression",
        }
        | more
    )


def draw_128_bits() -> int:
    return secrets.randbits(128)


@asynccontextmanager
async def running(pools: Pools, clock: Callable[[], int], home: Path) -> AsyncIterator[Service]:
    await ensure_partitions(pools, clock())
    live, catalogue = LiveView(SURFACES, Prior({})), Catalogue(pools.catalogue, REPLICA)
    sealer = Sealer([TicketKey(1, b"k" * 32, 0, None)])
    book, counters, journal = LeaseBook(), MemoryCounters(0), Journal(pools.recorder)
    spool = Spool.open(home / "spool" / "test.sqlite", SPOOL_BYTES)
    recorder, landings, hides = Recorder(journal, spool), Landings(catalogue), Hides()
    media, checks, auth = Media(home, pools.operator), Checks(), Auth(Keys(pools.catalogue))
    erased, pseudonyms = Erased(), Pseudonyms(ViewerSecrets(b"c" * 32, ((0, b"m" * 32),)))
    traffic = Traffic(Origins(pseudonyms))
    rules = TrafficKeeper(traffic, TrafficStore(pools.recorder), NO_NETWORKS, None)
    await rules.step(clock())
    judging: dict[str, Any] = {"hides": hides, "may_serve": lambda: True, "traffic": traffic}
    intake = Intake(sealer, counters, book, recorder, draw_128_bits, **judging)
    recording = Recording(Decisions(pools.recorder), 0.0)
    funnel = Funnel(FunnelStore(pools.recorder, REPLICA), clock())
    notes = (funnel.note, recording.note)
    parts = Parts(live.current, counters, hides, book, sealer, lambda: True, notes)
    slots = Slots(parts, clock, draw_128_bits, Bounds())

    def campaigns() -> Mapping[Any, Campaign]:
        return live.current().snapshot.campaigns

    outcomes = Outcomes(pools.recorder, REPLICA)

    def view() -> View:
        return live._view or View(EMPTY, {}, {}, Prior({}), False, 0)

    keeper = LeaseKeeper(book, Ledger(pools.recorder), campaigns, REPLICA)
    apis = [
        Health(checks),
        *setting_up(pools, clock, media),
        Estimates(*desks(pools), view, clock),
        Diagnoses(desks(pools)[0], view, SURFACES, keeper.keeps_back, clock),
        slots_api(slots, sealer, pseudonyms, clock),
        TrafficApi(*desks(pools), lambda: "", clock),
        EventsApi(intake, EventLog(journal, spool), sealer, clock),
        OutcomesApi(outcomes, pseudonyms, view, {"status": "status"}, erased.covers, clock),
        Beacons(intake, sealer, landings, Sources(decode_networks(LOOPBACK)), clock),
    ]
    operations = [operation for api in apis for operation in api.operations()]
    app = build_app(operations, auth, body_max_bytes=BODY_MAX_BYTES, version="1")
    refresh = Refresh(catalogue, live.publish, live.obey)
    writing = asyncio.create_task(recorder.run())
    try:
        async with TestClient(TestServer(app), headers=OUR_CLIENT) as client:
            service = Service(
                *(pools, clock, client, operations, auth, refresh, live, keeper),
                *(landings, recorder, media, checks, recording, funnel, rules),
            )
            for scope in ("feed", "operator", "analyst", "reviewer"):
                service.keys[scope] = await service.issue(scope)
            yield service
    finally:
        writing.cancel()
        with suppress(asyncio.CancelledError):
            await writing
        spool.close()


async def ensure_partitions(pools: Pools, now_ms: int) -> None:
    async with pools.owner.acquire() as connection:
        await partitions.ensure(connection, day_of(now_ms - DAY_MS), day_of(now_ms + DAY_MS))


def desks(pools: Pools) -> tuple[Desk, Desk]:
    return Desk(pools.tenant, pools.operator), Desk(pools.tenant, pools.analyst)


def setting_up(pools: Pools, clock: Callable[[], int], media: Media) -> list[Any]:
    desk, analysts = desks(pools)
    return [
        Advertisers(desk, clock),
        Campaigns(desk, clock),
        Creatives(desk, Uploads(Sandbox(MEDIA_MAX_BYTES), media), form_of(media, MEDIA_MAX_BYTES)),
        Ads(desk),
        Reviews(desk, "http://ads.test"),
        MediaFiles(media),
        RolloutApi(desk, SURFACES),
        RampsApi(desk, SURFACES, clock),
        Impressions(analysts),
        Reports(analysts, clock),
        Delivery(analysts, clock),
        Exports(desk, analysts, clock),
        DecisionsApi(analysts),
        Charges(analysts),
        ReconciliationApi(analysts),
        Invoices(desk, clock, SELLER),
        KeysApi(desk, clock),
    ]


def slots_api(slots: Slots, sealer: Sealer, pseudonyms: Pseudonyms, clock: Callable[[], int]) -> SlotsApi:
    return SlotsApi(
        slots,
        sealer,
        pseudonyms,
        PlacementEncoder("http://ads.test"),
        clock,
        surfaces={"status": "USD"},
        feed_items_max=500,
        deadline_max_ms=1_000,
    )
