"""Asks the service for an ad for every record of a log, when that record was written, and reports what came of it.

A second's requests are sent one after the other at their own milliseconds; what their ads caused is reported together
when the second is over. So the same log and seed give the same answers.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from adserve.catalogue.snapshot import SNAPSHOT_MAX_AGE_MS
from adserve.domain.events import EventKind
from adserve.domain.time import SECOND_MS, rfc3339
from adserve.simulation.caller import Caller, CallRefused, Placed
from adserve.simulation.clock import VirtualClock
from adserve.simulation.logs import LogMapping, Malformed, Row
from adserve.simulation.report import Tally

STEP_EVERY_MS = SNAPSHOT_MAX_AGE_MS * 4 // 5
STEP_EVERY_ROWS = 10
"""Budget leases last for at least twice as many events."""
DAY_MAY_BEGIN_EVERY_MS = 900 * SECOND_MS
"""Every time zone is whole quarters of an hour from UTC: a budget day of any of them begins at one."""

DEADLINE_MS = 60_000
"""A decision that ran out of real time would make two replays differ."""

FEED_LENGTH = 2

Step = Callable[[int], Awaitable[None]]


class _Shown(NamedTuple):
    row: Row
    placed: Placed


class Replay:
    """`step` does what the service does in the background, at a virtual moment; `campaigns` are keys by id."""

    def __init__(
        self,
        caller: Caller,
        clock: VirtualClock,
        step: Step,
        mapping: LogMapping,
        campaigns: Mapping[int, str],
        surface: str,
    ) -> None:
        self._caller = caller
        self._clock = clock
        self._step = step
        self._mapping = mapping
        self._campaigns = campaigns
        self._surface = surface
        self._stepped_at_ms = clock()
        self._rows_since_step = 0

    async def run(
        self,
        rows: Sequence[Row],
        tally: Tally,
        progress: Callable[[int], object],
        stopped: Callable[[], bool],
    ) -> None:
        """Goes through rows in the order of time, until the end or until `stopped` says so, between two seconds."""
        for second, group in groupby(rows, key=lambda row: row.at_ms // SECOND_MS):
            if stopped():
                return
            of_second = list(group)
            shown = [ad for row in of_second if (ad := await self._ask(row, tally)) is not None]
            await self._move_to((second + 1) * SECOND_MS)
            await self._report(shown, tally)
            progress(len(of_second))

    async def _move_to(self, moment_ms: int) -> None:
        self._clock.advance_to(moment_ms)
        before_ms = self._stepped_at_ms
        if (
            moment_ms - before_ms >= STEP_EVERY_MS
            or self._rows_since_step >= STEP_EVERY_ROWS
            or moment_ms // DAY_MAY_BEGIN_EVERY_MS != before_ms // DAY_MAY_BEGIN_EVERY_MS
        ):
            await self._step(moment_ms)
            self._stepped_at_ms = moment_ms
            self._rows_since_step = 0

    async def _ask(self, row: Row, tally: Tally) -> _Shown | None:
        await self._move_to(row.at_ms)
        self._rows_since_step += 1
        try:
            answer = await self._caller.slots(self._request(row))
        except CallRefused as error:
            if error.status != 400:
                raise
            tally.malformed.append(Malformed(row.line, error.problem))
            return None
        tally.asked(answer)
        return _Shown(row, answer.placements[0]) if answer.placements else None

    def _request(self, row: Row) -> dict[str, Any]:
        request: dict[str, Any] = {
            "viewer": row.viewer,
            "surface": self._surface,
            "feed_length": FEED_LENGTH,
            "max_ads": 1,
            "deadline_ms": DEADLINE_MS,
            "context": row.context,
            "consent": {"personalised": True},
        }
        if row.floor_micros is not None:
            request["floor"] = {"micros": row.floor_micros, "currency": self._mapping.currency}
        return request

    async def _report(self, shown: Sequence[_Shown], tally: Tally) -> None:
        """Every ad was seen; it was clicked if the log's was, and is the same."""
        reports: list[tuple[Placed, EventKind, dict[str, Any]]] = []
        for row, placed in shown:
            reports.append((placed, EventKind.IMPRESSION, {"occurred_at": rfc3339(row.at_ms)}))
            if row.clicked and self._campaigns[placed.ad.campaign] == row.campaign:
                reports.append((placed, EventKind.CLICK, {}))  # no log tells when that was
        answers = await self._caller.send(
            [{"ticket": placed.ticket, "kind": kind, **more} for placed, kind, more in reports]
        )
        for (placed, kind, _), answer in zip(reports, answers, strict=True):
            tally.happened(placed.ad.campaign, kind, answer)
