"""Sessions of the console: a key is exchanged for a cookie once, so that no page ever holds it again."""

import base64
from typing import NamedTuple

from adserve.access.keys import Key, Scope, hash_of
from adserve.domain.time import HOUR_MS

TOKEN_BYTES = 32
LASTS_MS = 12 * HOUR_MS
"""However much it is used: an operator signs in once a day."""
SESSIONS_PER_KEY_MAX = 20
"""Beyond them the oldest one ends."""
ENTRANTS = frozenset({Scope.OPERATOR, Scope.REVIEWER})
"""Any one of them opens the console; which of its pages, the key's scopes decide."""


class NewSession(NamedTuple):
    """`token` goes to the browser, `hash` to the table."""

    token: str
    hash: bytes
    expires_at_ms: int


def new_session(chance: bytes, now_ms: int) -> NewSession:
    """A session of `TOKEN_BYTES` random bytes."""
    if len(chance) != TOKEN_BYTES:
        raise ValueError(f"a session is made of {TOKEN_BYTES} bytes, not {len(chance)}")
    token = base64.urlsafe_b64encode(chance).decode().rstrip("=")
    return NewSession(token, hash_of(token), now_ms + LASTS_MS)


def may_enter(key: Key) -> bool:
    """Whether a key opens the console, and keeps it open."""
    return not key.scopes.isdisjoint(ENTRANTS) and key.advertiser is None
