"""`adserve backup DIR`: copies the data home, database and media, while it is served; the copy is started once to prove it."""

import argparse
import asyncio
from datetime import UTC, datetime
from pathlib import Path

from adserve.bootstrap.server import database_server
from adserve.commands.meter import Meter, say
from adserve.database import backup
from adserve.database.backup import Manifest
from adserve.database.refusal import DatabaseRefused
from adserve.settings import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder", type=Path, metavar="DIR", help="a folder that is new or empty, for this one backup"
    )


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    if settings.database_url is not None:
        raise DatabaseRefused(
            "ADSERVE_DATABASE_URL names a server of your own, which its own tools back up: see docs/operations.md"
        )
    manifest = asyncio.run(_taken(settings, arguments.folder.absolute()))
    size_mb = sum(file.size for file in manifest.files) / 1e6
    print(f"{arguments.folder}: {size_mb:,.0f} MB, {summary(manifest)}")
    return 0


async def _taken(settings: Settings, folder: Path) -> Manifest:
    async with database_server(settings, say) as url:
        with Meter() as meter:
            return await backup.take(settings.data_home, url, folder, datetime.now(UTC), say, meter)


def summary(manifest: Manifest) -> str:
    rows = {name: table.rows for name, table in manifest.tables.items()}
    return f"{rows.get('events', 0):,} events and {rows.get('postings', 0):,} postings in {sum(rows.values()):,} rows"
