"""The wrapper: the upstream's feed as it is, with ads spliced in where that is safe.

The upstream's status, headers and bytes pass unchanged whenever anything of ours fails or takes too long.
"""

import asyncio
import logging
import re
import zlib
from collections.abc import Callable
from enum import StrEnum
from typing import NamedTuple, Protocol

from aiohttp import ClientError, ClientResponse, web
from multidict import CIMultiDict
from prometheus_client import Counter

from adserve.access.keys import Scope
from adserve.api.slots import ADS_ASKED_MAX, OPAQUE_CHARS_MAX, Consent, Context
from adserve.api.splicing import find_items, splice
from adserve.api.upstream import PREFIX, Upstream, end_to_end, pass_back, read_body
from adserve.domain.slots import Ask, Viewer
from adserve.selection.decision import Decision, Placement
from adserve.web.auth import Auth, unauthenticated
from adserve.web.bodies import UTF_8, BodyDecoder, media_type
from adserve.web.operations import AnyQuery, Call, Operation
from adserve.web.problems import BAD_GATEWAY, GATEWAY_TIMEOUT, Problem

_UNTRUE_WITH_ADS = (
    "Accept-Ranges",
    "CDN-Cache-Control",
    "Content-Digest",
    "Content-Encoding",
    "Content-Length",
    "Content-MD5",
    "Digest",
    "ETag",
    "Last-Modified",
    "Repr-Digest",
    "Signature",
    "Signature-Input",
    "Surrogate-Control",
)
"""What an upstream says of its own bytes, or would let a cache keep one viewer's ads for another."""

_GRACE_S = 0.02
"""A decision keeps its own deadline; this much later we no longer believe that it will."""

_DESCRIPTION = (
    "The key travels in `X-Adserve-Key` and the viewer in `X-Adserve-Viewer`; `X-Adserve-Context` and "
    "`X-Adserve-Consent` have, as JSON, what `POST /v1/slots` calls `context` and `consent`. All else goes to the "
    "upstream, whose answer passes as it is but for the ads."
)

_NO_TEXT = re.compile("[\udc80-\udcff]")
"""What becomes of a header's bytes that are not UTF-8."""

_GZIP = 16 + zlib.MAX_WBITS

FEEDS = Counter(
    "adserve_feeds", "Feeds that passed through the wrapper, by what became of them.", ["outcome"]
)

log = logging.getLogger(__name__)


class Untouched(StrEnum):
    """Why a feed passes as it came."""

    NOT_A_FEED = "not_a_feed"
    NO_VIEWER = "no_viewer"
    BAD_CONTEXT = "bad_context"
    NO_ADS = "no_ads"
    DEADLINE = "deadline"
    FAULT = "fault"


class Bounds(NamedTuple):
    deadline_ms: int
    body_max_bytes: int
    items_max: int


class Slots(Protocol):
    async def answer(self, ask: Ask) -> Decision: ...


_decode_context = BodyDecoder(Context).decode
_decode_consent = BodyDecoder(Consent).decode


class Feed:
    """`GET` and `HEAD /v1/feed/<path>`.

    `viewer` makes the viewer's keys of the raw id; `encode` makes of a placement the JSON that POST /v1/slots
    answers for it; `wrapped` is told how many seconds a feed was kept to be given ads.
    """

    def __init__(
        self,
        upstream: Upstream,
        slots: Slots,
        auth: Auth,
        *,
        viewer: Callable[[str], Viewer],
        encode: Callable[[Placement], bytes],
        wrapped: Callable[[Ask, float], None],
        surface: str,
        bounds: Bounds,
    ) -> None:
        self._upstream = upstream
        self._slots = slots
        self._auth = auth
        self._viewer = viewer
        self._encode = encode
        self._wrapped = wrapped
        self._surface = surface
        self._bounds = bounds

    def operations(self) -> list[Operation]:
        return [
            Operation(
                method=method,
                path=PREFIX + "{path}",
                id=f"{method.lower()}Feed",
                summary=summary,
                tag="feed service",
                handle=self.answer,
                query=AnyQuery,
                refusals=(400, 401, 403, 502, 504),
                description=_DESCRIPTION,
            )
            for method, summary in (
                ("GET", "The upstream's feed with ads"),
                ("HEAD", "The upstream's headers"),
            )
        ]

    async def answer(self, call: Call[None, AnyQuery]) -> web.StreamResponse:
        request = call.request
        secret = request.headers.get("X-Adserve-Key", "")
        if not secret:
            raise unauthenticated("Send X-Adserve-Key and a key.")
        self._auth.authorise(secret, (Scope.FEED,))
        try:
            async with self._upstream.fetch(request) as answer:
                return await self._reply(request, answer)
        except TimeoutError as error:
            raise Problem(GATEWAY_TIMEOUT, "It did not answer in time.") from error
        except ClientError as error:
            raise Problem(BAD_GATEWAY, "It is away, or broke its answer off.") from error

    async def _reply(self, request: web.Request, answer: ClientResponse) -> web.StreamResponse:
        if request.method != "GET" or answer.status != 200 or not _is_json(answer):
            return await pass_back(request, answer)
        body = await read_body(answer, self._bounds.body_max_bytes)
        if not body.whole:
            return await pass_back(request, answer, body.data)
        result = await self._try_ads(request, answer, body.data)
        if isinstance(result, Untouched):
            FEEDS.labels(result).inc()
            return await pass_back(request, answer, body.data)
        FEEDS.labels("ads").inc()
        headers = CIMultiDict(end_to_end(answer.headers))
        for name in _UNTRUE_WITH_ADS:
            headers.popall(name, None)
        headers["Cache-Control"] = "private, no-store"
        return web.Response(body=result, reason=answer.reason, headers=headers)

    async def _try_ads(self, request: web.Request, answer: ClientResponse, body: bytes) -> bytes | Untouched:
        try:
            async with asyncio.timeout(self._bounds.deadline_ms / 1_000 + _GRACE_S):
                return await self._with_ads(request, answer, body)
        except TimeoutError:
            return Untouched.DEADLINE
        except Exception:
            log.exception("a feed passes without ads")
            return Untouched.FAULT

    async def _with_ads(self, request: web.Request, answer: ClientResponse, body: bytes) -> bytes | Untouched:
        seconds = asyncio.get_running_loop().time
        began_s = seconds()
        plain = _decoded(body, answer.headers.get("Content-Encoding", ""), self._bounds.body_max_bytes)
        items = None if plain is None else find_items(plain, self._bounds.items_max)
        if plain is None or items is None:
            return Untouched.NOT_A_FEED
        ask = self._ask(request, items.authors)
        if isinstance(ask, Untouched):
            return ask
        try:
            decision = await self._slots.answer(ask)
            if not decision.placements:
                return Untouched.NO_ADS
            ads = [(placement.position, _item(self._encode(placement))) for placement in decision.placements]
            return splice(plain, items, ads)[0]
        finally:
            self._wrapped(ask, seconds() - began_s)

    def _ask(self, request: web.Request, authors: tuple[str | None, ...]) -> Ask | Untouched:
        raw = request.headers.get("X-Adserve-Viewer", "")
        if not 0 < len(raw) <= OPAQUE_CHARS_MAX or _NO_TEXT.search(raw):
            return Untouched.NO_VIEWER
        try:
            context = _decode_context(request.headers.get("X-Adserve-Context", "{}").encode())
            consent = _decode_consent(request.headers.get("X-Adserve-Consent", "{}").encode())
        except (Problem, UnicodeEncodeError):
            return Untouched.BAD_CONTEXT
        return Ask(
            viewer=self._viewer(raw),
            surface=self._surface,
            feed_length=len(authors),
            authors=authors,
            max_ads=min(len(authors), ADS_ASKED_MAX),
            context=context,
            deadline_ms=self._bounds.deadline_ms,
            personalised=consent.personalised,
            ads_allowed=consent.ads,
        )


def _item(placement: bytes) -> bytes:
    return b'{"type":"ad",' + placement.removeprefix(b"{")


def _is_json(answer: ClientResponse) -> bool:
    kind, charset = media_type(answer.headers.get("Content-Type", ""))
    return (kind == "application/json" or kind.endswith("+json")) and charset in UTF_8


def _decoded(body: bytes, encoding: str, max_bytes: int) -> bytes | None:
    """The body without its content coding; None for a coding that we leave alone, or a bomb."""
    match encoding.strip().lower():
        case "" | "identity":
            return body
        case "gzip" | "x-gzip":
            inflater = zlib.decompressobj(_GZIP)
            try:
                plain = inflater.decompress(body, max_bytes)
            except zlib.error:
                return None
            return plain if inflater.eof and not inflater.unused_data else None
        case _:
            return None
