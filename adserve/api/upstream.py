"""The feed service behind the wrapper: requests go to it, and answers come back, as they are."""

from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple
from urllib.parse import unquote

from aiohttp import (
    ClientError,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    DummyCookieJar,
    TCPConnector,
    web,
)
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from adserve.web.problems import INVALID, NOT_FOUND, Problem

PREFIX = "/v1/feed/"

CONNECTIONS_MAX = 1_000
HEADER_MAX_BYTES = 65_536

_OURS = "x-adserve-"
_HOP_BY_HOP = {
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
}
_OF_THIS_HOP = {"host", "content-length", "expect"}
_NOT_ADDED = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")


class Body(NamedTuple):
    """The first bytes of a body, as they were on the wire, and whether they are all of it."""

    data: bytes
    whole: bool


def open_session(timeout_ms: int) -> ClientSession:
    """A session that neither decodes bodies nor carries one viewer's cookies over to the next."""
    seconds = timeout_ms / 1_000
    return ClientSession(
        connector=TCPConnector(limit=CONNECTIONS_MAX),
        timeout=ClientTimeout(total=None, connect=seconds, sock_read=seconds),
        cookie_jar=DummyCookieJar(),
        auto_decompress=False,
        max_line_size=HEADER_MAX_BYTES,
        max_field_size=HEADER_MAX_BYTES,
    )


class Upstream:
    """`session` comes from open_session. Whatever stands after PREFIX in a request goes behind `base_url`."""

    def __init__(self, session: ClientSession, base_url: str) -> None:
        self._session = session
        self._base = base_url.rstrip("/") + "/"

    def fetch(self, request: web.Request) -> AbstractAsyncContextManager[ClientResponse]:
        return self._session.request(
            request.method,
            self._target(request),
            headers=_forwarded(request.headers),
            skip_auto_headers=_NOT_ADDED,
            allow_redirects=False,
        )

    def _target(self, request: web.Request) -> URL:
        if request.body_exists:
            raise Problem(INVALID, "A request for a feed has no body.")
        if not request.raw_path.startswith(PREFIX):
            raise Problem(NOT_FOUND, f"Feeds are at {PREFIX}<path>.")
        tail = request.raw_path.removeprefix(PREFIX)
        if "#" in tail or _climbs(tail.partition("?")[0]):
            raise Problem(INVALID, "The path of a feed has no '..' and no '#'.")
        return URL(self._base + tail, encoded=True)


async def read_body(answer: ClientResponse, max_bytes: int) -> Body:
    data = bytearray()
    while len(data) <= max_bytes:
        chunk = await answer.content.readany()
        if not chunk:
            return Body(bytes(data), whole=True)
        data += chunk
    return Body(bytes(data), whole=False)


async def pass_back(request: web.Request, answer: ClientResponse, begun: bytes = b"") -> web.StreamResponse:
    """The upstream's own answer. `begun` is what was read of its body before."""
    response = web.StreamResponse(
        status=answer.status, reason=answer.reason, headers=CIMultiDict(end_to_end(answer.headers))
    )
    await response.prepare(request)
    try:
        if begun:
            await response.write(begun)
        async for chunk in answer.content.iter_any():
            await response.write(chunk)
    except (TimeoutError, ClientError):
        # The status line has gone out: only a broken connection still says that the body is not whole.
        if request.transport is not None:
            request.transport.abort()
    return response


def end_to_end(headers: CIMultiDictProxy[str]) -> Iterator[tuple[str, str]]:
    """All but the headers that concern one connection only (RFC 9110, section 7.6.1)."""
    named = {
        token.strip().lower() for value in headers.getall("Connection", ()) for token in value.split(",")
    }
    return ((name, value) for name, value in headers.items() if name.lower() not in _HOP_BY_HOP | named)


def _forwarded(headers: CIMultiDictProxy[str]) -> CIMultiDict[str]:
    return CIMultiDict(
        (name, value)
        for name, value in end_to_end(headers)
        if name.lower() not in _OF_THIS_HOP and not name.lower().startswith(_OURS)
    )


def _climbs(path: str) -> bool:
    """Whether the upstream might read a segment as its parent, and so leave the base."""
    segments = unquote(path).replace("\\", "/").split("/")
    return any(segment.partition(";")[0] == ".." for segment in segments)
