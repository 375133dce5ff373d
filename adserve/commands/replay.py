"""`adserve replay`: what would have come of a real log."""

import argparse
import asyncio
import random
import re
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, Never

import aiohttp
import msgspec
import uvloop
from tqdm import tqdm

from adserve.access.keys import Scope
from adserve.bootstrap.service import Service, start
from adserve.commands.arguments import positive
from adserve.commands.scratch import issue_key, scratch
from adserve.commands.serve import stop_signal
from adserve.database.refusal import DatabaseRefused
from adserve.domain.ads import Cap
from adserve.domain.surfaces import Surface
from adserve.domain.time import DAY_MS
from adserve.settings import Settings
from adserve.simulation.caller import OUR_CLIENT, Caller, CallRefused
from adserve.simulation.clock import VirtualClock
from adserve.simulation.log_catalogue import campaigns_of, set_up
from adserve.simulation.logs import LogMapping, LogRefused, Malformed, Row, load_mapping, read
from adserve.simulation.replay import DEADLINE_MS, Replay
from adserve.simulation.report import Report, Tally, report_of, text_of
from adserve.simulation.seed import Api, SeedError
from adserve.store.audit import Audit
from adserve.store.books import reconciled

SURFACE = "status"
CHECKPOINT_INTERVAL_S = 30 * 86_400
"""Nobody starts again from a replay's counters."""

_CAP = re.compile(r"(?P<scope>[a-z]+):(?P<count>\d{1,4})/(?P<window_s>\d{1,9})")


class Log(NamedTuple):
    """`rows` in the order of time; those of the same moment stay in the order of the file."""

    rows: Sequence[Row]
    malformed: Sequence[Malformed]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("log", type=Path, metavar="FILE", help="a log of impressions (CSV)")
    parser.add_argument(
        "--mapping", type=Path, required=True, help="TOML that says what the log's columns mean"
    )
    parser.add_argument(
        "--cap",
        type=_cap,
        action="append",
        default=[],
        metavar="SCOPE:COUNT/SECONDS",
        help="a cap for every campaign, as in campaign:1/86400; may be repeated",
    )
    parser.add_argument("--percent", type=float, default=100.0, help="the rollout's percent (default: 100)")
    parser.add_argument("--seed", type=int, default=0, help="what chance is drawn from (default: 0)")
    parser.add_argument("--rows", type=positive, help="stop after so many rows")
    parser.add_argument("--keep", action="store_true", help="keep the database and print its URL")
    parser.add_argument("--json", action="store_true", help="report as one line of JSON")
    parser.add_argument("--progress", action="store_true", help="show progress although there is no terminal")


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """0 when everything adds up, 1 when it does not or the log cannot be read, 130 when it was stopped."""
    try:
        mapping = load_mapping(arguments.mapping)
        log = _read(arguments, mapping)
        report = uvloop.run(_replay(arguments, settings, mapping, log))
    except (LogRefused, DatabaseRefused, CallRefused, SeedError) as error:
        _say(f"adserve replay: {error}")
        return 1
    print(report.json() if arguments.json else text_of(report))
    if not report.adds_up:
        return 1
    return 0 if report.complete else 130


def _read(arguments: argparse.Namespace, mapping: LogMapping) -> Log:
    rows: list[Row] = []
    malformed: list[Malformed] = []
    size = arguments.log.stat().st_size if arguments.log.is_file() else None
    with _bar(arguments, "reading", "B", size) as bar:
        for record in read(arguments.log, mapping, bar.update):
            if isinstance(record, Row):
                rows.append(record)
            else:
                malformed.append(record)
    if not rows:
        raise LogRefused(f"log {arguments.log}: no row of it can be read")
    rows.sort(key=lambda row: row.at_ms)
    return Log(rows[: arguments.rows], malformed)


async def _replay(arguments: argparse.Namespace, settings: Settings, mapping: LogMapping, log: Log) -> Report:
    start_ms = log.rows[0].at_ms
    clock = VirtualClock(start_ms)
    draw = partial(random.Random(arguments.seed).getrandbits, 128)  # noqa: S311 - chance that can be repeated
    stop = stop_signal()
    async with scratch(settings, "replay", _say, keep=arguments.keep) as (own, url):
        service = await start(_settings(own, mapping), url, clock=clock, draw=draw, background=False)
        try:
            return await _run(arguments, service, clock, mapping, log, stop)
        finally:
            await service.stop()


async def _run(
    arguments: argparse.Namespace,
    service: Service,
    clock: VirtualClock,
    mapping: LogMapping,
    log: Log,
    stop: asyncio.Event,
) -> Report:
    tally = Tally()
    tally.malformed += log.malformed
    key = await issue_key(service.core, "replay", Scope.FEED, Scope.OPERATOR)
    async with aiohttp.ClientSession(headers=OUR_CLIENT) as session:
        caller = Caller(session, service.url, key)
        campaigns = await set_up(
            Api(session, service.url, key),
            service.core.media.put,
            campaigns_of(log.rows, mapping),
            mapping,
            arguments.cap,
            starts_at_ms=clock() - clock() % DAY_MS,
            requests=len(log.rows),
        )
        await caller.call("PUT", "/v1/rollout", {"surfaces": {SURFACE: {"percent": arguments.percent}}})
        await service.run_tasks(clock())
        replay = Replay(caller, clock, service.tick, mapping, campaigns, SURFACE)
        with _bar(arguments, "replaying", "row", len(log.rows)) as bar:
            await replay.run(log.rows, tally, bar.update, stop.is_set)
    audit = Audit(service.core.pools.recorder)
    books = await reconciled(service.core.pools.analyst)
    return report_of(
        tally,
        await audit.stored(),
        campaigns=campaigns,
        mapping=mapping,
        caps=[(cap, await audit.over_cap(cap)) for cap in arguments.cap],
        differences=[str(difference) for difference in books.differences],
        complete=not stop.is_set(),
    )


def _settings(settings: Settings, mapping: LogMapping) -> Settings:
    """Every request has one place for an ad, and no decision runs out of real time."""
    surface = Surface(
        currency=mapping.currency, first_ad_after=1, min_gap=1, max_per_feed=1, min_feed_length=1
    )
    return msgspec.structs.replace(
        settings,
        decision_deadline_max_ms=DEADLINE_MS,
        checkpoint_interval_s=CHECKPOINT_INTERVAL_S,
        surfaces={SURFACE: surface},
    )


def _cap(text: str) -> Cap:
    parts = _CAP.fullmatch(text)
    if parts is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not like campaign:1/86400")
    try:
        return msgspec.convert(parts.groupdict(), Cap, strict=False)
    except msgspec.ValidationError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from error


def _bar(arguments: argparse.Namespace, name: str, unit: str, total: int | None) -> "tqdm[Never]":
    disable = False if arguments.progress else None
    return tqdm(total=total, desc=name, unit=unit, unit_scale=True, disable=disable)


def _say(text: str) -> None:
    tqdm.write(text, file=sys.stderr)
