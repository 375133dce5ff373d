"""`adserve reconcile`: derives every balance again from the events; exit code 1 on any difference."""

import argparse
import asyncio
import json
import sys
from typing import Any

from tqdm import tqdm

from adserve.accounting.reconciliation import Difference, Reconciliation
from adserve.bootstrap.server import database_server
from adserve.database.pools import open_pool
from adserve.settings import Settings
from adserve.store.books import Found, reconciled


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="answer one JSON object")


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    if arguments.json:
        found: list[dict[str, Any]] = []
        result = asyncio.run(_reconcile(settings, lambda difference: found.append(difference._asdict())))
        print(json.dumps(_told(result) | {"differences": found}))
    else:
        result = asyncio.run(_reconcile(settings, _print_difference))
        print("\n".join(_lines(result)))
    return 0 if result.exact else 1


async def _reconcile(settings: Settings, found: Found) -> Reconciliation:
    async with database_server(settings, _say) as url:
        pool = await open_pool(url, "adserve_analyst", size=1)
        async with pool:
            with tqdm(desc="reconciling", unit="step", disable=None, leave=False) as bar:

                def progress(done: int, steps: int) -> None:
                    bar.total = steps
                    bar.update(done - bar.n)

                return await reconciled(pool, progress, found)


def _lines(result: Reconciliation) -> list[str]:
    billed = ", ".join(f"{micros:,} {currency}" for currency, micros in result.billed_micros.items())
    verdict = "all exact" if result.exact else f"{result.differing:,} differ"
    return [
        f"{result.events:,} events, billed micros: {billed or 'none'}",
        f"raw events from {result.first_raw_day or 'no day'} on, closing entries before",
        f"{result.compared:,} figures compared, {verdict}",
    ]


def _told(result: Reconciliation) -> dict[str, Any]:
    return {
        "exact": result.exact,
        "first_raw_day": None if result.first_raw_day is None else result.first_raw_day.isoformat(),
        "events": result.events,
        "billed_micros": dict(result.billed_micros),
        "compared": result.compared,
        "differing": result.differing,
    }


def _print_difference(difference: Difference) -> None:
    tqdm.write(str(difference))


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
