"""`adserve reconcile`: derives every balance again from the events; exit code 1 on any difference."""

import argparse
import asyncio
import json
import sys

from adserve.accounting.reconciliation import Reconciliation
from adserve.bootstrap.server import database_server
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
    async with database_server(settings, _say) as url:
        pool = await open_pool(url, "adserve_analyst", size=1)
        async with pool:
            return await reconciled(pool)


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


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)  # noqa: T201
