"""`adserve migrate`: brings the database to the newest schema."""

import argparse
import asyncio

from adserve.bootstrap.server import database_server
from adserve.database.migrate import migrate
from adserve.settings import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """There are none: ADSERVE_DATABASE_URL, or else the data home, says which database."""


def run(_arguments: argparse.Namespace, settings: Settings) -> int:
    asyncio.run(_migrate(settings))
    return 0


async def _migrate(settings: Settings) -> None:
    async with database_server(settings, _say) as url:
        migrate(url, _say)


def _say(message: str) -> None:
    print(message, flush=True)
