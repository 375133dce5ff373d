"""`adserve migrate`: brings the database to the newest schema."""

import argparse
import asyncio

from adserve.bootstrap.server import database_server
from adserve.database.migrate import migrate
from adserve.settings import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """There are none: ADSERVE_DATABASE_URL, or else the data home, says which database."""


def run(_arguments: argparse.Namespace, settings: Settings) -> int:
    with asyncio.Runner() as runner:
        server = database_server(settings, _say)
        url = runner.run(server.__aenter__())
        try:
            migrate(url, _say)  # it awaits nothing: while the loop runs, Ctrl-C would wait for its end
        finally:
            runner.run(server.__aexit__(None, None, None))
    return 0


def _say(message: str) -> None:
    print(message, flush=True)
