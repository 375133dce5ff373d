"""Judges stored events again by another version of the rules: what was charged and is invalid now is to be credited.

An event itself never changes, and one that has become valid is not charged.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from datetime import date
from ipaddress import ip_network
from typing import NamedTuple, Protocol
from uuid import UUID

from adserve.domain.events import EventKind, Outcome
from adserve.domain.time import HOUR_MS
from adserve.domain.traffic import Origin, Reason, Rules
from adserve.metering.networks import Networks
from adserve.metering.traffic import Judge, Moments

WARM_UP_MS = 24 * HOUR_MS
"""The longest window: so much before a period is read to know what its first events follow upon."""
AT_ONCE = 500


class Logged(NamedTuple):
    """An event as it was stored, with what is judged of it."""

    issued_day: date
    ticket: UUID
    kind: EventKind
    outcome: Outcome
    viewer_cap: bytes
    issued_at_ms: int
    moments: Moments
    origin: Origin


class Finding(NamedTuple):
    issued_day: date
    ticket: UUID
    kind: EventKind
    reason: Reason


class Found(NamedTuple):
    """How many findings are new, how many charges were credited, and with how many micros of any currency."""

    findings: int
    credited: int
    micros: int


class Tally(NamedTuple):
    """`charged` counts the charged events of the period, `invalid` those of them that are invalid now."""

    judged: int = 0
    charged: int = 0
    invalid: int = 0
    found: Found = Found(0, 0, 0)


class Log(Protocol):
    def logged(self, from_ms: int, to_ms: int, /) -> AsyncIterator[Logged]:
        """In the order of receipt."""
        ...

    async def find_invalid(self, version: int, findings: Sequence[Finding], now_ms: int) -> Found: ...


class Rejudging:
    """One run over a period. Without a `version` nothing is written."""

    def __init__(self, log: Log, rules: Rules, networks: Networks, version: int | None) -> None:
        self._log = log
        self._judge = Judge(rules)
        self._networks = networks
        self._version = version
        self._findings: list[Finding] = []
        self.tally = Tally()

    async def run(
        self, since_ms: int, until_ms: int, now_ms: int, progress: Callable[[int, Tally], None]
    ) -> Tally:
        """`progress` is told after each hour up to where all is judged, and what came of it."""
        start_ms = since_ms - WARM_UP_MS
        while start_ms < until_ms:
            end_ms = min(start_ms + HOUR_MS, until_ms)
            async for event in self._log.logged(start_ms, end_ms):
                self._take(event, since_ms)
                if len(self._findings) >= AT_ONCE:
                    await self._write(now_ms)
            await self._write(now_ms)
            start_ms = end_ms
            if start_ms > since_ms:
                progress(start_ms, self.tally)
        return self.tally

    def _take(self, event: Logged, since_ms: int) -> None:
        reason = self._judge.judge(event.kind, event, event.moments, self._placed(event.origin))
        if event.moments.received_at_ms < since_ms:
            return
        charged = event.outcome is Outcome.RECORDED
        tally = self.tally
        tally = tally._replace(judged=tally.judged + 1, charged=tally.charged + charged)
        if charged and reason is not None:
            tally = tally._replace(invalid=tally.invalid + 1)
            self._findings.append(Finding(event.issued_day, event.ticket, event.kind, reason))
        self.tally = tally

    def _placed(self, origin: Origin) -> Origin:
        """Only a list that has all of the network that was kept is sure to have the address."""
        network = origin.network
        hosted = network is not None and self._networks.hold_all_of(ip_network(network))
        return origin._replace(hosted=hosted)

    async def _write(self, now_ms: int) -> None:
        if self._findings and self._version is not None:
            found = await self._log.find_invalid(self._version, self._findings, now_ms)
            self.tally = self.tally._replace(
                found=Found(*map(sum, zip(self.tally.found, found, strict=True)))
            )
        self._findings.clear()
