"""The table of operations: what makes the routes, their checks and the OpenAPI description alike."""

import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from aiohttp import web, web_urldispatcher
from msgspec import Struct
from prometheus_client import Counter

from adserve.access.keys import Key, Scope
from adserve.domain.ids import KeyId
from adserve.web.auth import Auth
from adserve.web.bodies import BodyDecoder, check_is_json, decode_query, read_body
from adserve.web.forms import Form
from adserve.web.gate import answered
from adserve.web.problems import EXPECTATION, Problem, problem_response, problems

REQUESTS = Counter("adserve_http_requests", "Calls by operation and status.", ["operation", "status"])

ANYONE = Key(KeyId(0), "anyone", frozenset(), None)
"""The caller of an operation that needs no key."""


class PathParameter(NamedTuple):
    pattern: str
    schema: dict[str, Any]
    description: str


PATH_PARAMETERS = {
    "id": PathParameter("[1-9][0-9]{0,15}", {"type": "integer", "minimum": 1}, "The thing's id"),
    "decision": PathParameter(
        "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}",
        {"type": "string", "format": "uuid"},
        "The decision's id",
    ),
    "event": PathParameter(
        "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}",
        {"type": "string", "format": "uuid"},
        "The event's id",
    ),
    "ticket": PathParameter("[^/]+", {"type": "string"}, "A sealed ticket"),
    "sha256": PathParameter("[0-9a-f]{64}", {"type": "string"}, "The SHA-256 of the bytes"),
    "path": PathParameter(".*", {"type": "string"}, "The upstream's own path"),
    "asset": PathParameter("[a-z0-9.-]+", {"type": "string"}, "A file of the page"),
}


class NoQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """For operations that take no parameters."""


class AnyQuery(Struct, frozen=True):
    """For operations that ignore or pass on whatever comes."""


Body = TypeVar("Body")
Query = TypeVar("Query", bound=Struct)


class Call(NamedTuple, Generic[Body, Query]):
    """A request that has passed the checks of its operation."""

    request: web.Request
    caller: Key
    query: Query
    body: Body
    raw_body: bytes

    @property
    def id(self) -> int:
        return int(self.request.match_info["id"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method on one path. Any one of `scopes` is enough; none means that no key is needed.

    `body` and `answer` are the types that travel; `decode` reads a body that needs more than its type; `form` may come
    in place of the JSON, and is then the call's body. `statuses` are those of an answer, `refusals` those of problems that do not follow from the rest.
    """

    method: str
    path: str
    id: str
    summary: str
    tag: str
    handle: Callable[[Call[Any, Any]], Awaitable[web.StreamResponse]]
    scopes: frozenset[Scope] = frozenset()
    body: Any = None
    decode: Callable[[bytes], Any] | None = None
    form: Form[Any] | None = None
    query: type[Struct] = NoQuery
    answer: Any = None
    content_types: tuple[str, ...] = ("application/json",)
    statuses: tuple[int, ...] = (200,)
    idempotent: bool = False
    conditional: bool = False
    refusals: tuple[int, ...] = ()
    description: str = ""
    example: Any = None

    @property
    def parameters(self) -> list[str]:
        return re.findall(r"{(\w+)}", self.path)

    @property
    def route(self) -> str:
        return re.sub(r"{(\w+)}", lambda name: f"{{{name[1]}:{PATH_PARAMETERS[name[1]].pattern}}}", self.path)


class Endpoint:
    """An operation at work: authenticates, decodes, answers, counts."""

    def __init__(self, operation: Operation, auth: Auth, body_max_bytes: int) -> None:
        self._operation = operation
        self._auth = auth
        self._body_max_bytes = body_max_bytes
        self._decode = operation.decode
        if operation.body is not None and self._decode is None:
            self._decode = BodyDecoder(operation.body).decode
        self._counts: dict[int, Any] = {}

    async def handle(self, request: web.Request) -> web.StreamResponse:
        response = await problems(request, self._answer)
        answered(response)
        count = self._counts.get(response.status)
        if count is None:
            count = REQUESTS.labels(self._operation.id, str(response.status))
            self._counts[response.status] = count
        count.inc()
        return response

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        scopes = self._operation.scopes
        return await self.answer(request, self._auth.authenticate(request, scopes) if scopes else ANYONE)

    async def answer(self, request: web.Request, caller: Key) -> web.StreamResponse:
        """Decodes and answers for a caller whom somebody has authenticated."""
        operation = self._operation
        query = AnyQuery() if operation.query is AnyQuery else decode_query(request, operation.query)
        raw, body = b"", None
        if operation.form is not None:
            if operation.form.is_sent(request):
                async with operation.form.received(request, caller) as (received, raw):
                    return await operation.handle(Call(request, caller, query, received, raw))
            check_is_json(request, "is neither application/json nor multipart/form-data")
        if self._decode is not None:
            check_is_json(request)
            raw = await read_body(request, self._body_max_bytes)
            body = self._decode(raw)
        return await operation.handle(Call(request, caller, query, body, raw))


async def _expect(request: web.Request) -> web.StreamResponse | None:
    """Lets a caller that asked first send its body. The framework's own answer to anything else repeats it, which
    fails on bytes that are no text."""
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # nothing of the answer has been sent
        return None
    return problem_response(Problem(EXPECTATION))


web_urldispatcher._default_expect_handler = _expect  # type: ignore[assignment]  # of every route, and of what has none


def add_routes(
    router: web.UrlDispatcher, operations: Iterable[Operation], auth: Auth, body_max_bytes: int
) -> None:
    for operation in operations:
        endpoint = Endpoint(operation, auth, body_max_bytes)
        router.add_route(operation.method, operation.route, endpoint.handle)
