"""Refusals as problem documents (RFC 9457), and the one table that turns exceptions into them."""

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple
from uuid import uuid4

import msgspec
from aiohttp import ClientConnectionResetError, web
from aiohttp.web_exceptions import HTTPException
from msgspec import Struct
from prometheus_client import Counter

from adserve.creatives.verdicts import MediaRefused, NoRoom
from adserve.metering.errors import JournalAway, RecorderFull, RecorderUnavailable, SpoolFull, TicketRefused
from adserve.selection.decision import RequestReused
from adserve.store.errors import Away, Contradiction, KeyReused, Missing, Outdated, UnknownReference

CONTENT_TYPE = "application/problem+json"
RETRY_AFTER_S = 1
GONE = 499
"""Of callers who do not wait for the end of an answer; only our figures see it."""

FAULTS = Counter("adserve_faults", "Requests that ended in an unexpected exception.")

log = logging.getLogger(__name__)


class FieldError(Struct, frozen=True):
    """`field` is a path into the body (`$.bid.price`), a query parameter (`?limit`), or a header's name."""

    field: str
    reason: str


class ProblemDocument(Struct, frozen=True, omit_defaults=True):
    """RFC 9457. `instance` identifies an unexpected failure in our logs."""

    type: str
    title: str
    status: int
    detail: str
    errors: Sequence[FieldError] = ()
    instance: str = ""


class Kind(NamedTuple):
    status: int
    slug: str
    title: str


INVALID = Kind(400, "invalid", "The request is not valid")
UNAUTHENTICATED = Kind(401, "unauthenticated", "A valid key is needed")
FORBIDDEN = Kind(403, "forbidden", "This is not allowed")
NOT_FOUND = Kind(404, "not-found", "There is no such thing")
METHOD = Kind(405, "method", "The method does not apply here")
SLOW = Kind(408, "slow-request", "The request took too long to arrive")
CONFLICT = Kind(409, "conflict", "The request contradicts what is already so")
OUTDATED = Kind(412, "outdated", "The thing has changed since it was read")
TOO_LARGE = Kind(413, "too-large", "The request is too large")
CONTENT = Kind(415, "content-type", "The body's content type is not accepted")
EXPECTATION = Kind(417, "expectation", "The expectation is not known")
OLD_HTTP = Kind(426, "http-version", "HTTP/1.1 is needed")
UNCONDITIONAL = Kind(428, "precondition-required", "If-Match is needed")
FAULT = Kind(500, "fault", "Something went wrong on our side")
BAD_GATEWAY = Kind(502, "bad-gateway", "The upstream feed cannot be read")
UNAVAILABLE = Kind(503, "unavailable", "Try again shortly")
GATEWAY_TIMEOUT = Kind(504, "gateway-timeout", "The upstream feed is silent")

KINDS = {
    kind.status: kind
    for kind in (
        INVALID,
        UNAUTHENTICATED,
        FORBIDDEN,
        NOT_FOUND,
        METHOD,
        SLOW,
        CONFLICT,
        OUTDATED,
        TOO_LARGE,
        CONTENT,
        EXPECTATION,
        OLD_HTTP,
        UNCONDITIONAL,
        FAULT,
        BAD_GATEWAY,
        UNAVAILABLE,
        GATEWAY_TIMEOUT,
    )
}


class Problem(Exception):
    """A refusal by the edge itself."""

    def __init__(
        self,
        kind: Kind,
        detail: str = "",
        errors: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.errors = errors
        self.headers = headers


def invalid(field: str, reason: str) -> Problem:
    return about(INVALID, field, reason)


def about(kind: Kind, field: str, reason: str) -> Problem:
    return Problem(kind, f"{field}: {reason}", (FieldError(field, reason),))


ANSWERS: dict[type[Exception], Kind] = {
    Away: UNAVAILABLE,
    Contradiction: CONFLICT,
    JournalAway: UNAVAILABLE,
    KeyReused: CONFLICT,
    MediaRefused: INVALID,
    Missing: NOT_FOUND,
    NoRoom: UNAVAILABLE,
    Outdated: OUTDATED,
    RecorderFull: UNAVAILABLE,
    RecorderUnavailable: UNAVAILABLE,
    RequestReused: CONFLICT,
    SpoolFull: UNAVAILABLE,
    TicketRefused: INVALID,
    UnknownReference: INVALID,
}
"""What each exception that a room below raises at a caller is answered with. Its message is for that caller, except
where we are unavailable: the reason is ours to know."""


HEADERS: dict[type[Exception], str] = {KeyReused: "Idempotency-Key", Outdated: "If-Match"}
"""The header that an exception is about."""


def problem_of(error: Exception) -> Problem | None:
    """None for what nobody expected. An exception may name the body's `field` that it is about."""
    kind = ANSWERS.get(type(error))
    if kind is None:
        return None
    if kind is UNAVAILABLE:
        return Problem(kind, headers={"Retry-After": str(getattr(error, "retry_after_s", RETRY_AFTER_S))})
    if type(error) in HEADERS:
        return about(kind, HEADERS[type(error)], str(error))
    field = getattr(error, "field", None)
    return Problem(kind, str(error)) if field is None else about(kind, f"$.{field}", str(error))


def problem_response(problem: Problem, instance: str = "") -> web.Response:
    kind = problem.kind
    document = ProblemDocument(
        f"urn:adserve:problem:{kind.slug}",
        kind.title,
        kind.status,
        problem.detail or kind.title,
        problem.errors,
        instance,
    )
    return web.Response(
        status=kind.status,
        body=msgspec.json.encode(document),
        content_type=CONTENT_TYPE,
        headers={"Cache-Control": "no-store", **(problem.headers or {})},
    )


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answers whatever is raised behind it."""
    try:
        return await handler(request)
    except Problem as problem:
        return problem_response(problem)
    except HTTPException as error:
        return _of_aiohttp(error)
    except web.RequestPayloadError as error:
        response = problem_response(Problem(INVALID, f"The body cannot be read: {error}"))
        response.force_close()  # what follows on this connection cannot be told apart any more
        return response
    except ClientConnectionResetError:
        return web.Response(status=GONE)
    except Exception as error:
        expected = problem_of(error)
        return _fault(request, error) if expected is None else problem_response(expected)


def _of_aiohttp(error: HTTPException) -> web.StreamResponse:
    if error.status < 400:
        raise error
    kind = KINDS.get(error.status) or Kind(error.status, f"http-{error.status}", error.reason)
    headers = {name: error.headers[name] for name in ("Allow", "Retry-After") if name in error.headers}
    given = error.text or ""
    return problem_response(Problem(kind, "" if given.startswith(str(error.status)) else given, (), headers))


def _fault(request: web.Request, error: Exception) -> web.Response:
    instance = f"urn:uuid:{uuid4()}"
    FAULTS.inc()
    resource = request.match_info.route.resource
    # Never the path itself, which may hold a ticket.
    where = resource.canonical if resource else "no resource"
    log.error("%s %s failed", request.method, where, exc_info=error, extra={"instance": instance})
    return problem_response(Problem(FAULT), instance)
