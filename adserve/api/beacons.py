"""/i.gif, /e.gif and /r: the same events, from clients that can only fire a URL.

They take no key: the sealed ticket is all that they know, and all that they can be wrong about. Whether they are valid traffic
is judged by the user agent and address of the request.
"""

import asyncio
import logging
from base64 import b64decode
from itertools import islice
from typing import Annotated

from aiohttp import web
from msgspec import Meta, Struct
from prometheus_client import Counter

from adserve.api.events import VIEW_MS_MAX
from adserve.catalogue.snapshot import Snapshot
from adserve.domain.events import EventKind, Outcome
from adserve.domain.time import Clock
from adserve.metering.errors import TicketRefused
from adserve.metering.intake import Intake, Report
from adserve.metering.tickets import Sealer
from adserve.store.catalogue import Catalogue
from adserve.web.operations import Call, Operation
from adserve.web.problems import invalid
from adserve.web.sources import Sources

GIF = b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")
CLICK_RECORD_TIMEOUT_S = 1.0
LANDINGS_MAX = 200_000
"""What was learnt first is forgotten first."""

UNRECORDED = Counter("adserve_clicks_unrecorded", "Clicks that were sent on without having been recorded.")

_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}

log = logging.getLogger(__name__)


class BeaconQuery(Struct, frozen=True):
    """Whatever else stands in the URL is ignored: advertisers' tools add parameters to every one."""

    e: Annotated[str, Meta(min_length=1, max_length=4_200, description="A sealed ticket")]


class EventQuery(BeaconQuery, frozen=True):
    view_ms: (
        Annotated[int, Meta(ge=0, le=VIEW_MS_MAX, description="Of a view, how long it lasted")] | None
    ) = None


class Landings:
    """Where a creative's revision leads: from the snapshots of this process, else from the database.

    What a snapshot once had is remembered, so that a click on an ad that has ended is sent on without PostgreSQL.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._urls: dict[tuple[int, int], str] = {}
        self._learnt: Snapshot | None = None

    def learn(self, snapshot: Snapshot) -> None:
        if snapshot is self._learnt:
            return
        for ad in snapshot.news:
            self._urls[ad.creative.id, ad.creative.revision] = ad.creative.landing_url
        for key in list(islice(self._urls, max(0, len(self._urls) - LANDINGS_MAX))):
            del self._urls[key]
        self._learnt = snapshot

    async def of(self, creative: int, revision: int) -> str | None:
        url = self._urls.get((creative, revision))
        return url or await self._catalogue.landing_url(creative, revision)


class Beacons:
    def __init__(
        self, intake: Intake, sealer: Sealer, landings: Landings, sources: Sources, clock: Clock
    ) -> None:
        self._intake = intake
        self._sources = sources
        self._sealer = sealer
        self._landings = landings
        self._clock = clock

    async def impression(self, call: Call[None, BeaconQuery]) -> web.StreamResponse:
        return await self._count(call, call.query.e, EventKind.IMPRESSION)

    async def event(self, call: Call[None, EventQuery]) -> web.StreamResponse:
        token, _, kind = call.query.e.partition(".")
        return await self._count(call, token, kind, call.query.view_ms)

    async def click(self, call: Call[None, BeaconQuery]) -> web.StreamResponse:
        """Sends the viewer on whatever becomes of the event: the click may be ours to lose, the visit is not."""
        now_ms = self._clock()
        report = Report(call.query.e, EventKind.CLICK, source=self._sources.of(call.request))
        try:
            ticket = self._sealer.open(call.query.e, now_ms)
        except TicketRefused as error:
            raise invalid("?e", str(error)) from error
        try:
            async with asyncio.timeout(CLICK_RECORD_TIMEOUT_S):
                await self._intake.take([report], now_ms)
        except Exception as error:
            UNRECORDED.inc()
            log.warning("a click was not recorded: %r", error, extra={"decision": str(ticket.decision)})
        url = await self._landings.of(ticket.creative, ticket.revision)
        if url is None:
            raise invalid("?e", "is of a creative that leads nowhere")
        return web.Response(status=302, headers=_HEADERS | {"Location": url})

    async def _count(
        self,
        call: Call[None, BeaconQuery] | Call[None, EventQuery],
        token: str,
        kind: str,
        view_ms: int | None = None,
    ) -> web.StreamResponse:
        report = Report(token, kind, view_ms=view_ms, source=self._sources.of(call.request))
        (answer,) = await self._intake.take([report], self._clock())
        if answer.outcome is Outcome.REFUSED:
            raise invalid("?e", "; ".join(wrong.reason for wrong in answer.errors))
        return web.Response(body=GIF, content_type="image/gif", headers=_HEADERS)

    def operations(self) -> list[Operation]:
        return [operation for method in ("GET", "POST") for operation in self._operations(method)]

    def _operations(self, method: str) -> list[Operation]:
        verb = method.lower()
        return [
            Operation(
                method=method,
                path="/i.gif",
                id=f"{verb}Impression",
                tag="beacons",
                summary="The ad was shown",
                handle=self.impression,
                query=BeaconQuery,
                content_types=("image/gif",),
                refusals=(400, 503),
            ),
            Operation(
                method=method,
                path="/e.gif",
                id=f"{verb}Event",
                tag="beacons",
                summary="Another event: the ticket, a dot, the kind",
                handle=self.event,
                query=EventQuery,
                content_types=("image/gif",),
                refusals=(400, 503),
            ),
            Operation(
                method=method,
                path="/r",
                id=f"{verb}Click",
                tag="beacons",
                summary="The ad was clicked: sends the viewer on to its landing page",
                handle=self.click,
                query=BeaconQuery,
                statuses=(302,),
                refusals=(400, 503),
            ),
        ]
