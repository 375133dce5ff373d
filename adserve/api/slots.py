"""/v1/slots: ads for one viewer's feed, and their release when they will not be shown."""

import itertools
import logging
from collections.abc import Mapping
from typing import Annotated, Any

import mmh3
import msgspec
from aiohttp import web
from msgspec import UNSET, Meta, Struct, UnsetType, field
from prometheus_client import Counter

from adserve.access.keys import Key, Scope
from adserve.api.placements import PlacementEncoder
from adserve.api.shapes import Id, Moment, Money
from adserve.domain import slots
from adserve.domain.slots import Ask, NoFill, Viewer
from adserve.domain.targeting import Age, Country
from adserve.domain.tickets import Ticket
from adserve.domain.time import Clock
from adserve.metering.errors import TicketRefused
from adserve.metering.pseudonyms import Pseudonyms
from adserve.metering.tickets import Sealer
from adserve.selection.decision import RequestReused
from adserve.web.auth import Auth
from adserve.web.bodies import BodyDecoder
from adserve.web.gate import Slots
from adserve.web.lane import in_step
from adserve.web.operations import Call, NoQuery, Operation
from adserve.web.problems import FORBIDDEN, INVALID, FieldError, Problem, invalid
from adserve.web.replies import JSON, json_response

FEED = frozenset({Scope.FEED})
EXPLAINERS = frozenset({Scope.OPERATOR, Scope.ANALYST})

CONTEXT_SAMPLE_EVERY = 100
CONTEXT_NAMES_LOGGED_MAX = 100
DEADLINE_DEFAULT_MS = 30
MAX_ADS_DEFAULT = 3
ADS_ASKED_MAX = 50
TOKEN_MAX_LENGTH = 4_096
OPAQUE_CHARS_MAX = 256

UNKNOWN_CONTEXT = Counter(
    "adserve_unknown_context_fields",
    f"Unknown context fields in one of {CONTEXT_SAMPLE_EVERY} slot requests.",
)

log = logging.getLogger(__name__)

Opaque = Annotated[str, Meta(min_length=1, max_length=OPAQUE_CHARS_MAX)]
Short = Annotated[str, Meta(max_length=64)]
Token = Annotated[str, Meta(min_length=1, max_length=TOKEN_MAX_LENGTH)]


class FeedItem(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """An organic item. Without an author it is a run of its own."""

    id: Opaque
    author: Opaque | None = None


class Context(slots.Context, frozen=True):
    """What is known of the viewer. Unknown fields are ignored, so that an app's release is no ad outage.

    Without a `time_zone` (an IANA name) that is known, the viewer's hours are those of the country's main one.
    """

    country: Country | None = None
    language: Short | None = None
    platform: Short | None = None
    app_version: Short | None = None
    age: Age | None = None
    interests: Annotated[tuple[Short, ...], Meta(max_length=100)] = ()
    time_zone: Short | None = None
    custom: Annotated[dict[Short, Short], Meta(max_length=50)] = field(default_factory=dict)


class Consent(Struct, frozen=True, forbid_unknown_fields=True):
    personalised: bool = False
    ads: bool = True


class SlotsRequest(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One of `feed` and `feed_length`. `floor` is per 1,000 impressions."""

    viewer: Opaque
    request: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    surface: Short | None = None
    feed: tuple[FeedItem, ...] | UnsetType = UNSET
    feed_length: Annotated[int, Meta(ge=0)] | UnsetType = UNSET
    max_ads: Annotated[int, Meta(ge=0, le=ADS_ASKED_MAX)] = MAX_ADS_DEFAULT
    floor: Money | None = None
    deadline_ms: Annotated[int, Meta(ge=1, le=60_000)] = DEADLINE_DEFAULT_MS
    ticket_ttl_s: Annotated[int, Meta(ge=60, le=86_400)] = 3_600
    context: Context = Context()
    consent: Consent = Consent()
    explain: bool = False


class PlacedAdvertiser(Struct, frozen=True):
    id: Id
    name: str


class PlacedCreative(Struct, frozen=True):
    id: Id
    kind: str
    media_url: str
    width: int
    height: int
    headline: str
    body: str
    call_to_action: str


class PlacedAd(Struct, frozen=True):
    id: Id
    campaign: Id
    advertiser: PlacedAdvertiser
    creative: PlacedCreative


class PlacementUrls(Struct, frozen=True):
    impression: str
    click: str
    hide: str
    report: str


class PlacementAnswer(Struct, frozen=True):
    """`position` is the number of organic items before the ad."""

    position: int
    ticket: str
    expires_at: Moment
    ad: PlacedAd
    urls: PlacementUrls


class SlotsAnswer(Struct, frozen=True):
    """`no_fill` says why nothing is placed: that is no error."""

    decision: str
    placements: list[PlacementAnswer]
    no_fill: NoFill | None
    explanation: dict[str, Any] | UnsetType = UNSET


class ReleaseRequest(Struct, frozen=True, forbid_unknown_fields=True):
    tickets: Annotated[list[Token], Meta(min_length=1, max_length=1_000)]


class ReleaseAnswer(Struct, frozen=True):
    """How many were still reserved."""

    released: int


EXAMPLE = {
    "viewer": "u-123",
    "surface": "status",
    "feed": [{"id": f"s{n}", "author": f"a{n // 2}"} for n in range(12)],
    "max_ads": 3,
    "context": {"country": "ID", "language": "id", "platform": "android", "age": 27, "interests": ["music"]},
    "consent": {"personalised": True},
}


class SlotsApi:
    """`surfaces` maps each surface to its currency; the first one is meant when a request names none."""

    def __init__(
        self,
        slots: Slots,
        sealer: Sealer,
        pseudonyms: Pseudonyms,
        encoder: PlacementEncoder,
        clock: Clock,
        *,
        surfaces: Mapping[str, str],
        feed_items_max: int,
        deadline_max_ms: int,
    ) -> None:
        self._slots = slots
        self._sealer = sealer
        self._pseudonyms = pseudonyms
        self._encoder = encoder
        self._clock = clock
        self._surfaces = surfaces
        self._default_surface = next(iter(surfaces))
        self._feed_items_max = feed_items_max
        self._deadline_max_ms = deadline_max_ms
        self._sample = ContextSample()
        self._decode = BodyDecoder(SlotsRequest).decode

    async def answer(self, call: Call[SlotsRequest, NoQuery]) -> web.StreamResponse:
        self._sample.look(call.raw_body)
        decision = await self._slots.answer(self._ask(call.body, call.raw_body, call.caller))
        return web.Response(body=self._encoder.decision(decision), content_type=JSON)

    async def answer_plainly(
        self, slots: Slots, auth: Auth, secret: str, raw: bytes, waited_ms: int
    ) -> bytes | None:
        """The same without aiohttp: the body of an answer, or None where `answer` refuses or explains."""
        try:
            caller = auth.authorise(secret, FEED)
            body = self._decode(raw)
            if body.explain:
                return None
            ask = self._ask(body, raw, caller, waited_ms)
            await in_step()
            decision = await slots.answer(ask)
        except (Problem, RequestReused):
            return None
        self._sample.look(raw)
        await in_step()
        return self._encoder.decision(decision)

    async def release(self, call: Call[ReleaseRequest, NoQuery]) -> web.StreamResponse:
        released = await self._slots.release(self._open(call.body.tickets))
        return json_response(ReleaseAnswer(released))

    def _ask(self, body: SlotsRequest, raw: bytes, caller: Key, waited_ms: int = 0) -> Ask:
        surface = self._default_surface if body.surface is None else body.surface
        if surface not in self._surfaces:
            raise invalid("$.surface", f"is not one of {', '.join(self._surfaces)}")
        feed_length, authors = self._feed(body)
        if body.floor is not None and body.floor.currency != self._surfaces[surface]:
            raise invalid("$.floor.currency", f"is not {self._surfaces[surface]}, the surface's")
        if caller.advertiser is not None:
            raise Problem(FORBIDDEN, "An advertiser's key cannot ask for other advertisers' ads.")
        if not body.explain and Scope.FEED not in caller.scopes:
            raise Problem(FORBIDDEN, "This needs a key with the scope 'feed'.")
        if body.explain and caller.scopes.isdisjoint(EXPLAINERS):
            raise Problem(FORBIDDEN, "To explain needs a key with the scope 'operator' or 'analyst'.")
        cap, log_ = self._pseudonyms.of(body.viewer, self._clock())
        return Ask(
            viewer=Viewer(body.viewer, cap, log_),
            surface=surface,
            feed_length=feed_length,
            authors=authors,
            max_ads=body.max_ads,
            context=body.context,
            floor_micros=body.floor.micros if body.floor else 0,
            deadline_ms=min(body.deadline_ms, self._deadline_max_ms) - waited_ms,
            ticket_ttl_s=body.ticket_ttl_s,
            personalised=body.consent.personalised,
            ads_allowed=body.consent.ads,
            explain=body.explain,
            request=body.request,
            digest=b"" if body.request is None else mmh3.hash_bytes(raw),
        )

    def _feed(self, body: SlotsRequest) -> tuple[int, tuple[str | None, ...] | None]:
        """How many organic items there are, and their authors where they are told."""
        if (body.feed is UNSET) is (body.feed_length is UNSET):
            raise invalid("$.feed", "or else $.feed_length is needed, not both")
        if body.feed is not UNSET:
            if len(body.feed) > self._feed_items_max:
                raise invalid("$.feed", f"has more than {self._feed_items_max:,} items")
            return len(body.feed), tuple([item.author for item in body.feed])
        if body.feed_length > self._feed_items_max:  # type: ignore[operator]  # one of the two is set
            raise invalid("$.feed_length", f"is more than {self._feed_items_max:,}")
        return body.feed_length, None  # type: ignore[return-value]  # as above

    def _open(self, tokens: list[str]) -> list[Ticket]:
        now_ms = self._clock()
        tickets: list[Ticket] = []
        refused: list[FieldError] = []
        for index, token in enumerate(tokens):
            try:
                tickets.append(self._sealer.open(token, now_ms))
            except TicketRefused as error:
                refused.append(FieldError(f"$.tickets[{index}]", str(error)))
        if refused:
            raise Problem(INVALID, "Nothing was released.", refused)
        return tickets

    def operations(self) -> list[Operation]:
        return [
            Operation(
                method="POST",
                path="/v1/slots",
                id="slots",
                tag="feed service",
                summary="Ads for one viewer's feed",
                description="Answers 200 without placements when there are no ads, and says why in `no_fill`.",
                handle=self.answer,
                scopes=FEED | EXPLAINERS,
                body=SlotsRequest,
                answer=SlotsAnswer,
                refusals=(409,),
                example=EXAMPLE,
            ),
            Operation(
                method="POST",
                path="/v1/tickets/release",
                id="releaseTickets",
                tag="feed service",
                summary="Give back what will not be shown",
                handle=self.release,
                scopes=FEED,
                body=ReleaseRequest,
                answer=ReleaseAnswer,
                example={"tickets": ["AQAAAAE"]},
            ),
        ]


class ContextSample:
    """Looks at one request of many for context fields that we ignore: counts them and logs each name once."""

    def __init__(self) -> None:
        self._countdown = itertools.cycle(range(CONTEXT_SAMPLE_EVERY))
        self._decoder = msgspec.json.Decoder(_AnyContext)
        self._logged: set[str] = set()

    def look(self, raw: bytes) -> None:
        if next(self._countdown):
            return
        try:
            context = self._decoder.decode(raw).context
        except (ValueError, RecursionError):
            return  # what is ignored need not be well-formed
        unknown = context.keys() - set(Context.__struct_fields__)
        UNKNOWN_CONTEXT.inc(len(unknown))
        for name in unknown - self._logged:
            if len(self._logged) < CONTEXT_NAMES_LOGGED_MAX:
                self._logged.add(name)
                log.warning("unknown context field %.64r is ignored", name)


class _AnyContext(Struct):
    context: dict[str, Any] = {}
