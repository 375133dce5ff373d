"""Who may use the console: a session's cookie, and for all that changes something, our own page."""

from urllib.parse import urlsplit

from aiohttp import hdrs, web

from adserve.access.keys import Key, hash_of
from adserve.access.sessions import LASTS_MS, NewSession, may_enter
from adserve.domain.time import SECOND_MS, Clock
from adserve.store.sessions import Sessions
from adserve.web.problems import FORBIDDEN, UNAUTHENTICATED, Problem

COOKIE = "adserve_console"
PATH = "/console"
SENT_BY_OUR_SCRIPT = "X-Adserve-Console"
"""No form can send a header, and no script of another origin may without our leave, which nobody gets."""
_SAFE = frozenset({"GET", "HEAD"})


class Guard:
    def __init__(self, sessions: Sessions, clock: Clock) -> None:
        self._sessions = sessions
        self._clock = clock

    async def caller(self, request: web.Request) -> Key:
        """The key of the request's session. Raises Problem without one, and for a change that another page asks for."""
        check_origin(request)
        key = await self.known(request)
        if key is None:
            raise Problem(UNAUTHENTICATED, "Sign in first.")
        return key

    async def known(self, request: web.Request) -> Key | None:
        token = request.cookies.get(COOKIE)
        if not token:
            return None
        key = await self._sessions.caller(hash_of(token), self._clock())
        return key if key is not None and may_enter(key) else None

    def admit(self, request: web.Request, response: web.Response, session: NewSession) -> None:
        """The cookie keeps to HTTPS where the page came by it: behind plain HTTP it could not be sent at all."""
        response.set_cookie(
            COOKIE,
            session.token,
            max_age=LASTS_MS // SECOND_MS,
            path=PATH,
            secure=_by_https(request),
            httponly=True,
            samesite="Strict",
        )

    async def dismiss(self, request: web.Request, response: web.Response) -> None:
        token = request.cookies.get(COOKIE)
        if token:
            await self._sessions.close(hash_of(token))
        response.del_cookie(COOKIE, path=PATH, secure=_by_https(request), httponly=True, samesite="Strict")


def _by_https(request: web.Request) -> bool:
    return request.headers.get(hdrs.ORIGIN, "").startswith("https://")


def check_origin(request: web.Request) -> None:
    """Refuses changes that do not come from a page of this very origin: another port of this host is another page's."""
    if request.method in _SAFE:
        return
    site = request.headers.get("Sec-Fetch-Site")
    if site is None:  # browsers leave it out where a page comes by plain HTTP
        own = urlsplit(request.headers.get(hdrs.ORIGIN, "")).netloc == request.host
    else:
        own = site == "same-origin"
    if not own or SENT_BY_OUR_SCRIPT not in request.headers:
        raise Problem(FORBIDDEN, "Only the console's own page may ask this.")
