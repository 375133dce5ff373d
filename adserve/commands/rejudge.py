"""`adserve rejudge`: judges the events of a period again by the newest rules, and credits what was charged wrongly."""

import argparse
import asyncio
import sys
import time
from datetime import UTC, datetime

from adserve.bootstrap.server import database_server
from adserve.bootstrap.traffic import read_networks
from adserve.commands.arguments import day
from adserve.database import schema
from adserve.database.pools import open_pool
from adserve.domain.time import DAY_MS, SECOND_MS, to_ms
from adserve.metering.origins import CRAWLERS_VERSION
from adserve.metering.rejudging import Rejudging, Tally
from adserve.settings import Settings
from adserve.store.traffic import TrafficStore


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--from", dest="since", required=True, type=day, metavar="DAY", help="2026-01-31")
    parser.add_argument(
        "--to", dest="until", required=True, type=day, metavar="DAY", help="the last day (UTC, included)"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would be credited, and write nothing"
    )


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    if arguments.until < arguments.since:
        _say("--to is before --from")
        return 2
    tally, version = asyncio.run(_rejudge(arguments, settings))
    print(_as_text(tally, version))
    return 0


async def _rejudge(arguments: argparse.Namespace, settings: Settings) -> tuple[Tally, int | None]:
    networks = read_networks(settings)
    async with database_server(settings, _say) as url:
        if settings.database_url is None:
            await schema.update(url, _say)
        pool = await open_pool(url, "adserve_recorder", size=2)
        async with pool:
            store, now_ms = TrafficStore(pool), time.time_ns() // SECOND_MS**2
            revision, version = await store.newest(), None
            if not arguments.dry_run:
                version = await store.version_of(revision, CRAWLERS_VERSION, networks.digest, now_ms)
            rejudging = Rejudging(store, revision.rules, networks, version)
            until_ms = min(to_ms(arguments.until) + DAY_MS, now_ms)
            return await rejudging.run(to_ms(arguments.since), until_ms, now_ms, _progress), version


def _progress(to_where_ms: int, tally: Tally) -> None:
    where = datetime.fromtimestamp(to_where_ms / SECOND_MS, UTC)
    _say(f"{where:%F %H:%M}: {tally.judged:,} events judged, {tally.invalid:,} charged ones are invalid")


def _as_text(tally: Tally, version: int | None) -> str:
    judged = (
        f"{tally.judged:,} events judged, {tally.invalid:,} of {tally.charged:,} charged ones are invalid"
    )
    if version is None:
        return f"{judged}; nothing was written"
    found = tally.found
    return f"{judged} by version {version}: {found.findings:,} new findings, {found.credited:,} credits of {found.micros:,} micros"


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
