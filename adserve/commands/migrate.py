"""`adserve migrate`: brings the database to the newest schema."""

import argparse
import asyncio

from adserve.database import embedded
from adserve.database.migrate import migrate
from adserve.settings import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """There are none: ADSERVE_DATABASE_URL, or else the data home, says which database."""


def run(_arguments: argparse.Namespace, settings: Settings) -> int:
    if settings.database_url:
        migrate(settings.database_url, _say)
    else:
        asyncio.run(_migrate_embedded(settings))
    return 0


async def _migrate_embedded(settings: Settings) -> None:
    server = await embedded.start(settings.data_home, _say)
    try:
        migrate(server.url, _say)
    finally:
        await server.stop()


def _say(message: str) -> None:
    print(message, flush=True)  # noqa: T201 - progress for whoever started the command
