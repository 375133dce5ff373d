"""`adserve restore DIR`: puts a backup into an empty data home, and compares every table with what was backed up."""

import argparse
import asyncio
from pathlib import Path

from adserve.commands.backup import summary
from adserve.commands.meter import Meter, say
from adserve.database import backup
from adserve.database.backup import Manifest
from adserve.database.refusal import DatabaseRefused
from adserve.settings import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="DIR", help="what `adserve backup` has written")


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    if settings.database_url is not None:
        raise DatabaseRefused(
            "ADSERVE_DATABASE_URL names a server of your own; a backup goes into ADSERVE_DATA_HOME: unset it"
        )
    manifest = asyncio.run(_restored(settings, arguments.folder.absolute()))
    taken = f"as of {manifest.taken_at:%Y-%m-%d %H:%M:%S} UTC"
    print(f"{settings.data_home}: {summary(manifest)}, {taken}; all tables equal")
    return 0


async def _restored(settings: Settings, folder: Path) -> Manifest:
    with Meter() as meter:
        return await backup.restore(folder, settings.data_home, say, meter)
