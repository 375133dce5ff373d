"""Recorded decisions of late, looked at for one campaign: day by day from the newest, in pieces between which requests go on."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from adserve.domain.surfaces import Surface
from adserve.domain.time import DAY_MS, HOUR_MS, QUARTER_MS, day_of
from adserve.reporting.estimate import Hour
from adserve.selection.compiled import CompiledAd, compiled
from adserve.selection.hindsight import Hindsight, looked, versions_of
from adserve.selection.recording import Record, RecordRefused, ad_of, decode
from adserve.store.decisions import SQL
from adserve.store.desk import Desk
from adserve.store.errors import Away

DAYS = 7
DECISIONS_AN_HOUR_MAX = 30
"""The newest of each hour, so that all hours of the days are among them: some 5,000 in all."""
VERSIONS_MAX = 20_000
"""Of ads. Decisions that name more are passed over."""
LOOKED_AT_S = 4.0
"""After that, the days that were looked at have to do."""
PIECE = 8
"""So many records take one or two milliseconds."""

_ANY = Surface()


class Sample:
    """`desk` reads as an analyst: decisions tell of all advertisers' ads, so nothing but sums may leave here."""

    def __init__(self, desk: Desk, seconds: Callable[[], float] = time.monotonic) -> None:
        self._desk = desk
        self._seconds = seconds

    async def hours(self, hindsight: Hindsight, now_ms: int) -> list[Hour]:
        """The hours of the last DAYS days, from the first that was looked at to the present one. Raises Away where not even
        the newest day could be in time."""
        until = self._seconds() + LOOKED_AT_S
        end_ms = now_ms - now_ms % HOUR_MS + HOUR_MS
        requests = await self._requests(end_ms - DAYS * DAY_MS, end_ms)
        versions: dict[bytes, CompiledAd] = {}
        hours: list[Hour] = []
        for first_ms in range(end_ms - DAY_MS, end_ms - (DAYS + 1) * DAY_MS, -DAY_MS):
            try:
                async with asyncio.timeout(until - self._seconds()):
                    hours[:0] = await self._day(hindsight, first_ms, requests, versions)
            except TimeoutError as error:
                if not hours:
                    raise Away from error
                break
        return hours

    async def _requests(self, start_ms: int, end_ms: int) -> Mapping[int, int]:
        """By the first moment of the hour."""
        async with self._desk.transaction(None) as connection:
            rows = await connection.fetch(SQL.requests, start_ms // QUARTER_MS, end_ms // QUARTER_MS - 1)
        requests: dict[int, int] = defaultdict(int)
        for quarter, count in rows:
            moment_ms = quarter * QUARTER_MS
            requests[moment_ms - moment_ms % HOUR_MS] += count
        return requests

    async def _day(
        self,
        hindsight: Hindsight,
        first_ms: int,
        requests: Mapping[int, int],
        versions: dict[bytes, CompiledAd],
    ) -> list[Hour]:
        starts_ms = range(first_ms, first_ms + DAY_MS, HOUR_MS)
        async with self._desk.transaction(None) as connection:
            rows = await connection.fetch(
                SQL.sample,
                list(map(day_of, starts_ms)),
                [_least_id(start_ms) for start_ms in starts_ms],
                [_least_id(start_ms + HOUR_MS) for start_ms in starts_ms],
                DECISIONS_AN_HOUR_MAX,
            )
        records: list[list[Record]] = [[] for _ in starts_ms]
        for place, (hour, data) in enumerate(rows):
            await _breathe(place)
            records[hour].append(decode(data))
        await self._learn(versions, [record for of_hour in records for record in of_hour])
        return [
            await _hour(start_ms, requests.get(start_ms, 0), of_hour, hindsight, versions)
            for start_ms, of_hour in zip(starts_ms, records, strict=True)
        ]

    async def _learn(self, versions: dict[bytes, CompiledAd], records: Iterable[Record]) -> None:
        """The facts of the ads that these decisions are about."""
        named = {candidate.digest for record in records for candidate in versions_of(record)}
        missing = list(named - versions.keys())[: VERSIONS_MAX - len(versions)]
        async with self._desk.transaction(None) as connection:
            rows = await connection.fetch(SQL.versions, missing) if missing else []
        for place, row in enumerate(rows):
            await _breathe(place)
            versions[row["digest"]] = compiled(ad_of(row["facts"]), _ANY)


async def _hour(
    start_ms: int,
    requests: int,
    records: Sequence[Record],
    hindsight: Hindsight,
    versions: Mapping[bytes, CompiledAd],
) -> Hour:
    """What was to be explained is no sample of anything."""
    counts: dict[str, Any] = dict.fromkeys(
        ("sampled", "looked", "matched", "won", "placed", "cost_micros"), 0
    )
    rivals: set[int] = set()
    for place, record in enumerate(records):
        await _breathe(place)
        if record.ask.explain:
            requests -= 1
            continue
        if looked(record):
            try:
                outcome = hindsight.judge(record, versions)
            except RecordRefused:
                continue
            counts["looked"] += 1
            counts["matched"] += outcome.matched
            counts["won"] += outcome.placed > 0
            counts["placed"] += outcome.placed
            counts["cost_micros"] += outcome.cost_micros
            rivals |= outcome.rivals
        counts["sampled"] += 1
    full = len(records) == DECISIONS_AN_HOUR_MAX
    return Hour(start_ms, max(0, requests), full, **counts, rivals=frozenset(rivals))


async def _breathe(place: int) -> None:
    if place % PIECE == PIECE - 1:
        await asyncio.sleep(0)


def _least_id(moment_ms: int) -> UUID:
    return UUID(int=moment_ms << 80)
