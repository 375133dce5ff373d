"""`adserve train`: learns the click model from a log or from the service's own events, and measures it."""

import argparse
import asyncio
import sys
import time
from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from tqdm import tqdm

from adserve.bootstrap.server import database_server
from adserve.commands.arguments import day
from adserve.database.pools import open_pool
from adserve.database.refusal import DatabaseRefused
from adserve.domain.time import to_ms
from adserve.prediction.impressions import Impression
from adserve.settings import Settings
from adserve.simulation.logs import LogMapping, LogRefused, Malformed, Row, load_mapping, read
from adserve.store.learning import Learning
from models.card import Report, metrics_table
from models.examples import from_row, with_exposures
from models.fitting import NotTrainable
from models.training import train

MALFORMED_NAMED_MAX = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--log", type=Path, help="a log of impressions; without it, the service's own events")
    parser.add_argument("--mapping", type=Path, help="TOML that says what the log's columns mean")
    parser.add_argument("--out", type=Path, required=True, help="the folder for the artifact and its card")
    parser.add_argument(
        "--test-from",
        type=day,
        metavar="DATE",
        help="the UTC day from which rows are for testing only (default: the last fifth of the rows)",
    )


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    if (arguments.log is None) != (arguments.mapping is None):
        _say("adserve train: --log and --mapping go together")
        return 2
    now = time.time_ns() // 1_000_000
    try:
        if arguments.log:
            source, impressions = (
                arguments.log.name,
                _from_log(arguments.log, load_mapping(arguments.mapping)),
            )
        else:
            source, impressions = "recorded events", iter(asyncio.run(_from_events(settings, now)))
        report = train(
            with_exposures(impressions),
            arguments.out,
            source=source,
            test_from_ms=arguments.test_from and to_ms(arguments.test_from),
            now=now,
            progress=_say,
        )
    except (LogRefused, NotTrainable, DatabaseRefused, OSError) as error:
        _say(f"adserve train: {error}")
        return 1
    _show(report, arguments.out)
    return 0


def _from_log(path: Path, mapping: LogMapping) -> Iterator[Impression]:
    size = path.stat().st_size
    with tqdm(total=size, desc="reading", unit="B", unit_scale=True, disable=None) as bar:
        yield from map(from_row, _well_formed(read(path, mapping, bar.update)))


def _well_formed(rows: Iterable[Row | Malformed]) -> Iterator[Row]:
    malformed = 0
    for row in rows:
        if isinstance(row, Row):
            yield row
            continue
        malformed += 1
        if malformed <= MALFORMED_NAMED_MAX:
            _say(f"line {row.line} left out: {row.reason}")
    if malformed:
        _say(f"{malformed:,} malformed lines left out")


async def _from_events(settings: Settings, now: int) -> list[Impression]:
    async with database_server(settings, _say) as url:
        return await _recorded(url, now)


async def _recorded(url: str, now: int) -> list[Impression]:
    pool: Any = await open_pool(url, "adserve_analyst", size=1)
    async with pool:
        learning = Learning(pool)
        span = await learning.days()
        if span is None:
            raise NotTrainable("no events are recorded yet")
        first, last = span
        days = [first + timedelta(days=day) for day in range((last - first).days + 1)]
        return [
            impression
            for day in tqdm(days, desc="reading", unit="day", disable=None)
            for impression in await learning.impressions(day, now)
        ]


def _show(report: Report, out: Path) -> None:
    print(metrics_table(report.evaluations))
    _say(f"model lr-{report.header.weights_sha256[:8]} is in {out}; its card is beside it")


def _say(text: str) -> None:
    tqdm.write(text, file=sys.stderr)
