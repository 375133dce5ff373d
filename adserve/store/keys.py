"""API keys: issued, listed, revoked, and read into every process's ring."""

from datetime import datetime
from typing import Any, NamedTuple

import asyncpg

from adserve.access.keys import Key, NewKey, Scope
from adserve.domain.ids import AdvertiserId, KeyId
from adserve.store.desk import ACQUIRE_TIMEOUT_S
from adserve.store.errors import AWAY, Away, Missing, UnknownReference
from adserve.store.statements import load

SQL = load("keys")


class KnownKey(NamedTuple):
    """A key as a person lists it."""

    key: Key
    hint: str
    created_at: datetime
    revoked_at: datetime | None


class Keys:
    """Issuing and revoking needs the operator's pool or a connection of it, reading the pool of the catalogue."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def valid(self) -> list[tuple[bytes, Key]]:
        try:
            rows = await self._pool.fetch(SQL.valid, timeout=ACQUIRE_TIMEOUT_S)
        except AWAY as error:
            raise Away from error
        return [(row["hash"], key_from_row(row)) for row in rows]

    async def issue(
        self, new: NewKey, name: str, scopes: frozenset[Scope], advertiser: AdvertiserId | None, now: datetime
    ) -> KeyId:
        values = (name, new.hash, new.hint, sorted(scopes), advertiser, now)
        try:
            return KeyId(await self._pool.fetchval(SQL.issue, *values))
        except asyncpg.ForeignKeyViolationError as error:
            raise UnknownReference("advertiser") from error

    async def known(self, after: int = 0, limit: int | None = None) -> list[KnownKey]:
        """In the order of their ids, revoked ones too."""
        return [_known_from_row(row) for row in await self._pool.fetch(SQL.known, after, limit)]

    async def revoke(self, key: KeyId, now: datetime) -> KnownKey:
        """Revoking again changes nothing."""
        row = await self._pool.fetchrow(SQL.revoke, key, now)
        if row is None:
            raise Missing(f"there is no key {key}")
        return _known_from_row(row)


def _known_from_row(row: Any) -> KnownKey:
    return KnownKey(key_from_row(row), row["hint"], row["created_at"], row["revoked_at"])


def key_from_row(row: Any) -> Key:
    scopes = frozenset(map(Scope, row["scopes"]))
    return Key(KeyId(row["id"]), row["name"], scopes, row["advertiser_id"])
