"""Recorded decisions of late, looked at for one campaign: day by day from the newest, in pieces between which requests go on."""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence, Set
from uuid import UUID

from adserve.domain.surfaces import Surface
from adserve.domain.time import DAY_MS, HOUR_MS, QUARTER_MS, day_of
from adserve.reporting.estimate import Hour
from adserve.selection.compiled import CompiledAd, compiled
from adserve.selection.hindsight import Hindsight, Outcome, looked, versions_of
from adserve.selection.recording import Record, RecordRefused, ad_of, decode
from adserve.store.decisions import SQL
from adserve.store.desk import Desk
from adserve.store.errors import Away

DAYS = 7
DECISIONS_MAX = 5_000
"""Dealt out evenly to the hours in which anything was asked for, the newest of each: so all hours of the days are among them."""
DECISIONS_AN_HOUR_MAX = 500
VERSIONS_MAX = 20_000
"""Of ads. Decisions that name more are passed over."""
LOOKED_AT_S = 4.0
"""After that, the days that were looked at have to do."""
PIECE = 4
"""So many records take a millisecond."""

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
        most = min(DECISIONS_AN_HOUR_MAX, DECISIONS_MAX // max(1, len(requests)))
        versions: dict[bytes, CompiledAd] = {}
        hours: list[Hour] = []
        for first_ms in range(end_ms - DAY_MS, end_ms - (DAYS + 1) * DAY_MS, -DAY_MS):
            try:
                async with asyncio.timeout(until - self._seconds()):
                    hours[:0] = await self._day(hindsight, first_ms, requests, most, versions)
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
        most: int,
        versions: dict[bytes, CompiledAd],
    ) -> list[Hour]:
        starts_ms = range(first_ms, first_ms + DAY_MS, HOUR_MS)
        async with self._desk.transaction(None) as connection:
            rows = await connection.fetch(
                SQL.sample,
                list(map(day_of, starts_ms)),
                [_least_id(start_ms) for start_ms in starts_ms],
                [_least_id(start_ms + HOUR_MS) for start_ms in starts_ms],
                most,
            )
        records: list[list[Record]] = [[] for _ in starts_ms]
        named: set[bytes] = set()
        for place, (hour, data) in enumerate(rows):
            await _breathe(place)
            try:
                record = decode(data)
            except RecordRefused:
                continue
            records[hour].append(record)
            named.update([candidate.digest for candidate in versions_of(record)])
        await self._learn(versions, named)
        return [
            await _hour(
                Hour(start_ms, requests.get(start_ms, 0), len(of_hour) == most), of_hour, hindsight, versions
            )
            for start_ms, of_hour in zip(starts_ms, records, strict=True)
        ]

    async def _learn(self, versions: dict[bytes, CompiledAd], named: Set[bytes]) -> None:
        """The facts of the ads that decisions have named."""
        missing = list(named - versions.keys())[: VERSIONS_MAX - len(versions)]
        async with self._desk.transaction(None) as connection:
            rows = await connection.fetch(SQL.versions, missing) if missing else []
        for place, row in enumerate(rows):
            await _breathe(place)
            versions[row["digest"]] = compiled(ad_of(row["facts"]), _ANY)


async def _hour(
    hour: Hour, records: Sequence[Record], hindsight: Hindsight, versions: Mapping[bytes, CompiledAd]
) -> Hour:
    """What was to be explained is no sample of anything."""
    outcomes: list[Outcome] = []
    explained = sampled = 0
    for place, record in enumerate(records):
        await _breathe(place)
        if record.ask.explain:
            explained += 1
            continue
        if looked(record):
            try:
                outcomes.append(hindsight.judge(record, versions))
            except RecordRefused:
                continue
        sampled += 1
    return hour._replace(
        requests=max(0, hour.requests - explained),
        sampled=sampled,
        looked=len(outcomes),
        matched=sum(outcome.matched for outcome in outcomes),
        won=sum(outcome.placed > 0 for outcome in outcomes),
        placed=sum(outcome.placed for outcome in outcomes),
        cost_micros=sum(outcome.cost_micros for outcome in outcomes),
        contested=sum(bool(outcome.rivals) for outcome in outcomes),
        rivals=Counter(rival for outcome in outcomes for rival in outcome.rivals),
    )


async def _breathe(place: int) -> None:
    if place % PIECE == 0:
        await asyncio.sleep(0)


def _least_id(moment_ms: int) -> UUID:
    return UUID(int=moment_ms << 80)
