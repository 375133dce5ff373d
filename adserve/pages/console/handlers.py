"""What the console's page asks: its session, and the operations of the API that it shows, answered for the session's key."""

import secrets
from collections.abc import Callable, Collection, Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

from aiohttp import hdrs, web
from msgspec import Meta, Struct

from adserve.access.keys import Scope
from adserve.access.sessions import ENTRANTS, TOKEN_BYTES, new_session
from adserve.domain.time import Clock
from adserve.pages.assets import Assets
from adserve.pages.console.guard import COOKIE, Guard, check_origin
from adserve.store.sessions import Sessions
from adserve.web.auth import Auth, check_scope
from adserve.web.bodies import BodyDecoder, check_is_json, read_body
from adserve.web.operations import Endpoint, Operation
from adserve.web.problems import Handler

ROLLOUT = "/console/rollout"
REVIEWS = "/console/reviews"
SHOWN = ("/v1/ramps", "/v1/rollout", "/v1/reviews")
API = "/console/api"
BODY_MAX_BYTES = 65_536
NOT_KEPT = "no-store"


class SignIn(Struct, frozen=True, forbid_unknown_fields=True):
    key: Annotated[str, Meta(min_length=1, max_length=200)]


class ConsolePages:
    """`operations` is the whole API: of it, those under `SHOWN` are answered below `API`. `surfaces` may be planned for."""

    def __init__(
        self,
        operations: Iterable[Operation],
        auth: Auth,
        sessions: Sessions,
        surfaces: Collection[str],
        clock: Clock,
        chance: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._auth = auth
        self._sessions = sessions
        self._surfaces = list(surfaces)
        self._clock = clock
        self._chance = chance
        self._guard = Guard(sessions, clock)
        self._assets = Assets({"chart.js": _chart_library()})
        self._sign_in_body = BodyDecoder(SignIn)
        self._shown = [operation for operation in operations if operation.path.startswith(SHOWN)]

    def add_to(self, app: web.Application) -> None:
        app.router.add_get("/console", self._enter)
        app.router.add_get(ROLLOUT, self._rollout)
        app.router.add_get(REVIEWS, self._reviews)
        app.router.add_get("/console/static/{name:.+}", self._assets.get)
        app.router.add_post("/console/session", self._sign_in)
        app.router.add_delete("/console/session", self._sign_out)
        for operation in self._shown:
            path = API + operation.route.removeprefix("/v1")
            app.router.add_route(operation.method, path, self._answering(operation))

    async def _enter(self, _request: web.Request) -> web.Response:
        return _see(ROLLOUT)

    async def _rollout(self, request: web.Request) -> web.Response:
        key = await self._guard.known(request)
        if key is None:
            return self._sign_in_page(request)
        if Scope.OPERATOR not in key.scopes:
            return _see(REVIEWS)
        return self._assets.page("console.html", caching=NOT_KEPT, name=key.name, surfaces=self._surfaces)

    async def _reviews(self, request: web.Request) -> web.Response:
        key = await self._guard.known(request)
        if key is None:
            return self._sign_in_page(request)
        operates = Scope.OPERATOR in key.scopes
        return self._assets.page("reviews.html", caching=NOT_KEPT, name=key.name, operates=operates)

    def _sign_in_page(self, request: web.Request) -> web.Response:
        return self._assets.page("sign-in.html", caching=NOT_KEPT, ended=COOKIE in request.cookies)

    async def _sign_in(self, request: web.Request) -> web.Response:
        check_origin(request)
        check_is_json(request)
        body = self._sign_in_body.decode(await read_body(request, BODY_MAX_BYTES))
        key = self._auth.authorise(body.key.strip(), ENTRANTS)
        now_ms = self._clock()
        session = new_session(self._chance(TOKEN_BYTES), now_ms)
        await self._sessions.open(session, key.id, now_ms)
        response = web.Response(status=204)
        self._guard.admit(request, response, session)
        return response

    async def _sign_out(self, request: web.Request) -> web.Response:
        check_origin(request)
        response = web.Response(status=204)
        await self._guard.dismiss(request, response)
        return response

    def _answering(self, operation: Operation) -> Handler:
        endpoint = Endpoint(operation, self._auth, BODY_MAX_BYTES)

        async def answer(request: web.Request) -> web.StreamResponse:
            key = await self._guard.caller(request)
            check_scope(key, operation.scopes)
            response = await endpoint.answer(request, key)
            response.headers[hdrs.CACHE_CONTROL] = NOT_KEPT
            return response

        return answer


def _see(page: str) -> web.Response:
    return web.Response(status=307, headers={hdrs.LOCATION: page, hdrs.CACHE_CONTROL: NOT_KEPT})


def _chart_library() -> Path:
    """Chart.js with its axis of time, as the package `chartkick` carries it."""
    package = find_spec("chartkick")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("chartkick")  # named in our own requirements
    return Path(package.origin).parent / "django" / "static" / "chartkick" / "Chart.bundle.js"
