"""What a run of its own needs: a database and a data home to throw away, and keys to a service."""

import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from adserve.access.keys import SECRET_BYTES, Scope, new_key
from adserve.bootstrap.core import Core
from adserve.bootstrap.server import database_server
from adserve.database import fresh, schema
from adserve.domain.time import from_ms
from adserve.settings import Settings
from adserve.store.keys import Keys

Progress = Callable[[str], None]


@asynccontextmanager
async def scratch(
    settings: Settings, purpose: str, progress: Progress, *, keep: bool
) -> AsyncIterator[tuple[Settings, str]]:
    """Settings with a data home to throw away and a port of its own, and the URL of a new, migrated database on the server of
    the given settings. The database is dropped in the end unless it is to be kept."""
    name = f"adserve_{purpose}_{secrets.token_hex(6)}"
    async with database_server(settings, progress) as server_url:
        url = await fresh.create(server_url, name)
        try:
            await schema.update(url, lambda _: None)
            with TemporaryDirectory(prefix="adserve-") as home:
                own = {"data_home": Path(home), "host": "127.0.0.1", "port": 0, "public_url": None}
                yield msgspec.structs.replace(settings, upstream_url=None, **own), url
        finally:
            if keep:
                progress(f"kept: {url}")
            else:
                await fresh.drop(server_url, name)


async def issue_key(core: Core, name: str, *scopes: Scope) -> str:
    """A key that the service knows when this returns. Those of that name from earlier runs end."""
    new = new_key(secrets.token_bytes(SECRET_BYTES))
    keys, now = Keys(core.pools.operator), from_ms(core.clock())
    for known in await keys.known():
        if known.key.name == name and known.revoked_at is None:
            await keys.revoke(known.key.id, now)
    await keys.issue(new, name, frozenset(scopes), None, now)
    await core.auth.refresh()
    return new.secret
