"""Who calls, and whether that key may do this."""

from collections.abc import Collection

from aiohttp import web

from adserve.access.keys import Key, KeyRing, Scope
from adserve.store.keys import Keys
from adserve.web.problems import FORBIDDEN, UNAUTHENTICATED, Problem

_BEARER = "bearer "
_REALM = 'Bearer realm="adserve"'


class Auth:
    """Knows the keys of the last `refresh`, so that calls go on while PostgreSQL is away.

    A refresh each POLL_S and at every notice on CHANNEL revokes a key on every replica within 5 s.
    """

    CHANNEL = "adserve_keys"
    POLL_S = 2.0

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._ring = KeyRing()

    async def refresh(self) -> None:
        self._ring.replace(await self._keys.valid())

    def authenticate(self, request: web.Request, scopes: Collection[Scope]) -> Key:
        """The caller's key, which has one of the scopes."""
        header = request.headers.get("Authorization", "")
        if header[: len(_BEARER)].lower() != _BEARER:
            raise unauthenticated("Send Authorization: Bearer and a key.")
        return self.authorise(header[len(_BEARER) :].strip(), scopes)

    def authorise(self, secret: str, scopes: Collection[Scope]) -> Key:
        key = self._ring.find(secret)
        if key is None:
            raise unauthenticated("This key is unknown or revoked.", f'{_REALM}, error="invalid_token"')
        check_scope(key, scopes)
        return key


def check_scope(key: Key, scopes: Collection[Scope]) -> None:
    if key.scopes.isdisjoint(scopes):
        needed = " or ".join(f"'{scope}'" for scope in sorted(scopes))
        raise Problem(FORBIDDEN, f"This needs a key with the scope {needed}.")


def unauthenticated(detail: str, challenge: str = _REALM) -> Problem:
    return Problem(UNAUTHENTICATED, detail, headers={"WWW-Authenticate": challenge})
