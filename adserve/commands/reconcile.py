"""`adserve reconcile`: derives every balance again from the events; exit code 1 on any difference."""

import argparse
import asyncio
import json
import sys

from adserve.accounting.reconciliation import Reconciliation
from adserve.database import embedded
from adserve.database.pools import open_pool
from adserve.settings import Settings
from adserve.store.books import reconciled


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="answer one JSON object")


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    result = asyncio.run(_reconcile(settings))
    print(_as_json(result) if arguments.json else _as_text(result))  # noqa: T201 - what the command is for
    return 0 if result.exact else 1


async def _reconcile(settings: Settings) -> Reconciliation:
    if settings.database_url:
        return await _reconcile_at(settings.database_url)
    server = await embedded.start(settings.data_home, lambda message: print(message, file=sys.stderr))  # noqa: T201
    try:
        return await _reconcile_at(server.url)
    finally:
        await server.stop()


async def _reconcile_at(url: str) -> Reconciliation:
    pool = await open_pool(url, "adserve_analyst", size=1)
    try:
        return await reconciled(pool)
    finally:
        await pool.close()


def _as_text(result: Reconciliation) -> str:
    billed = ", ".join(f"{micros:,} {currency}" for currency, micros in result.billed_micros.items())
    lines = [f"{result.events:,} events, billed micros: {billed or 'none'}"]
    lines += [str(difference) for difference in result.differences]
    lines.append(
        f"{result.compared:,} figures compared, "
        + ("all exact" if result.exact else f"{len(result.differences)} differ")
    )
    return "\n".join(lines)


def _as_json(result: Reconciliation) -> str:
    return json.dumps(
        {
            "exact": result.exact,
            "events": result.events,
            "billed_micros": dict(result.billed_micros),
            "compared": result.compared,
            "differences": [difference._asdict() for difference in result.differences],
        }
    )
