"""API keys: 256 bits of chance behind a prefix that scanners of leaked secrets can recognise."""

import base64
import hashlib
from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple

from adserve.domain.ids import AdvertiserId, KeyId

PREFIX = "ads_"
SECRET_BYTES = 32


class Scope(StrEnum):
    FEED = "feed"
    ADVERTISER = "advertiser"
    ANALYST = "analyst"
    REVIEWER = "reviewer"
    OPERATOR = "operator"


BOUND_SCOPES = frozenset({Scope.ADVERTISER, Scope.ANALYST})
"""What a key of an advertiser may do; `advertiser` is for such a key alone."""


class Key(NamedTuple):
    """Without an `advertiser` a key is our own staff's or the feed service's."""

    id: KeyId
    name: str
    scopes: frozenset[Scope]
    advertiser: AdvertiserId | None


class NewKey(NamedTuple):
    """`hint` is what a list may show of the secret."""

    secret: str
    hash: bytes
    hint: str


def scopes_refused(scopes: frozenset[Scope], advertiser: int | None) -> tuple[str, str] | None:
    """Why no key may have these scopes together: the field that is wrong, and the reason."""
    if advertiser is None:
        if Scope.ADVERTISER in scopes:
            return "advertiser", "is needed with the scope 'advertiser'"
    elif scopes - BOUND_SCOPES:
        return "scopes", f"'{min(scopes - BOUND_SCOPES)}' is not for an advertiser's key"
    return None


def new_key(chance: bytes) -> NewKey:
    """A key of `SECRET_BYTES` random bytes."""
    if len(chance) != SECRET_BYTES:
        raise ValueError(f"a key is made of {SECRET_BYTES} bytes, not {len(chance)}")
    secret = PREFIX + base64.urlsafe_b64encode(chance).decode().rstrip("=")
    return NewKey(secret, hash_of(secret), secret[: len(PREFIX) + 4])


def hash_of(secret: str) -> bytes:
    """Plain SHA-256: with 256 bits of chance there is nothing for a slow hash to protect."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()


class KeyRing:
    """The keys that are valid now, found by hash, so that a comparison leaks no part of a secret by its time. A secret that
    was found once is known until the keys change."""

    def __init__(self) -> None:
        self._keys: dict[bytes, Key] = {}
        self._found: dict[str, Key] = {}

    def find(self, secret: str) -> Key | None:
        key = self._found.get(secret)
        if key is None:
            key = self._keys.get(hash_of(secret))
            if key is not None:
                self._found[secret] = key
        return key

    def replace(self, keys: Iterable[tuple[bytes, Key]]) -> None:
        self._keys, self._found = dict(keys), {}

    def __len__(self) -> int:
        return len(self._keys)
