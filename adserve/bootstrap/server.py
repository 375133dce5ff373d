"""The PostgreSQL server for as long as a command needs it: the settings' own, or the embedded one."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from adserve.database import backup, embedded
from adserve.settings import Settings


@asynccontextmanager
async def database_server(settings: Settings, progress: Callable[[str], None]) -> AsyncIterator[str]:
    """Its URL. An embedded server is started again at the same address when it dies. Raises DatabaseRefused."""
    if settings.database_url is not None:
        yield settings.database_url
        return
    backup.check_whole(settings.data_home)
    server = await embedded.start(settings.data_home, progress)
    keeping = asyncio.create_task(server.keep(), name="embedded server")
    try:
        yield server.url
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        await server.stop()
