"""Clients that show many ads and report them in batches until each is acknowledged; and what the ledger holds of them."""

import asyncio
import random
import secrets
import time
from collections.abc import Awaitable, Callable, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import asyncpg
from live import DEADLINE_MS, NO_ANSWER
from sizes import WITHIN_S

CLIENTS = 6
BATCH = 100
AGAIN = 0.05
"""The share of batches that are sent once more though they were acknowledged."""
PATIENCE_S = 0.1
ANSWER_S = 10.0
QUERY_S = 600.0
SETTLED_WITHIN_S = 120.0
"""What is accepted settles by itself once all is well again, and goes on doing so within that time."""
SURELY_LOST_S = 10.0
"""For controls, which wait for what will not come."""
FEED_LENGTH = 60
ADS = 12
ROOMY = f"""[surfaces.status]
first_ad_after = 1
min_gap = 1
max_per_feed = {ADS}
"""
"""Settings under which a feed of FEED_LENGTH has many ads."""

STORED = """SELECT uuid_send(ticket_id) AS ticket, outcome, billed_micros, price_micros FROM events
WHERE kind = 'impression'"""

DURABLE = frozenset(
    {"recorded", "accepted", "duplicate", "over_budget", "over_cap", "late", "invalid_traffic"}
)


class Verdict(NamedTuple):
    """`lost` was acknowledged and is not there, `twice` is there more than once, `foreign` was never sent; `misbilled` was
    charged otherwise than said, or than its price."""

    acknowledged: int
    stored: int
    lost: int
    twice: int
    foreign: int
    misbilled: int
    billed_micros: int

    @property
    def clean(self) -> bool:
        return not (self.lost or self.twice or self.foreign or self.misbilled)


@dataclass
class Flood:
    """`acknowledged` holds of each ticket what it was said to be charged, None where that was not said. `goal` is how many of them
    are wanted; without one, clients go on."""

    session: aiohttp.ClientSession
    url: str
    key: str
    name_of: Callable[[str], bytes]
    chance: random.Random
    events_url: str = ""
    sent: set[bytes] = field(default_factory=set)
    acknowledged: dict[bytes, int | None] = field(default_factory=dict)
    unanswered: int = 0
    accepted: int = 0
    goal: int | None = None
    stopped: bool = False

    @property
    def disturbed(self) -> int:
        """Answers that would have been others, or would have been there, had nothing happened."""
        return self.unanswered + self.accepted

    async def run(self) -> None:
        """Until the goal is reached, or it is stopped."""
        async with asyncio.TaskGroup() as group:
            for _ in range(CLIENTS):
                group.create_task(self._client())

    async def _client(self) -> None:
        batch: list[str] = []
        while not self._reached(0) and not self.stopped:
            batch += await self._shown()
            if batch and (len(batch) >= BATCH or self._reached(len(batch))):
                await self.report(batch)
                batch = []

    def _reached(self, more: int) -> bool:
        return self.goal is not None and len(self.acknowledged) + more >= self.goal

    async def _shown(self) -> list[str]:
        viewer = secrets.token_hex(8)
        ask = {
            "viewer": viewer, "request": viewer, "feed_length": FEED_LENGTH, "max_ads": ADS,
            "deadline_ms": DEADLINE_MS,
        }  # fmt: skip  # laid out as rows
        answer = await self._insist(self.url + "/v1/slots", ask)
        return [placement["ticket"] for placement in answer["placements"]] if answer else []

    async def report(self, tokens: list[str]) -> None:
        self.sent.update(map(self.name_of, tokens))
        events = {"events": [{"ticket": token, "kind": "impression"} for token in tokens]}
        for _ in range(1 + (self.chance.random() < AGAIN)):
            answer = await self._insist((self.events_url or self.url) + "/v1/events", events)
            if answer is None:
                return
            for token, result in zip(tokens, answer["results"], strict=True):
                assert result["outcome"] in DURABLE, result
                billed = result["billed"]["micros"] if result["billed"] else None
                name = self.name_of(token)
                self.accepted += result["outcome"] == "accepted"
                if billed is not None or name not in self.acknowledged:
                    self.acknowledged[name] = billed

    async def _insist(self, url: str, body: Any) -> Any:
        while not self.stopped:
            try:
                answer = await self.post(url, body)
            except (*NO_ANSWER, TimeoutError):
                answer = None
            if answer is not None:
                return answer
            self.unanswered += 1
            await asyncio.sleep(PATIENCE_S)
        return None

    async def post(self, url: str, body: Any) -> Any:
        headers = {"Authorization": f"Bearer {self.key}"}
        timeout = aiohttp.ClientTimeout(total=ANSWER_S)
        async with self.session.post(url, json=body, headers=headers, timeout=timeout) as answer:
            if answer.status == 503:
                return None
            assert answer.status == 200, await answer.text()
            return await answer.json()

    async def verdict(
        self, database_url: str, others: Set[bytes], patience_s: float = SETTLED_WITHIN_S
    ) -> Verdict:
        """When all that is only `accepted` has settled, or nothing more has for as long as the patience lasts. `others` are tickets
        that are not of this flood."""
        stored, deadline = -1, 0.0
        while True:
            began = time.monotonic()
            verdict = await self._verdict(database_url, others)
            if verdict.stored > stored:
                stored, deadline = verdict.stored, began + patience_s
            if not verdict.lost or time.monotonic() > deadline:
                return verdict
            await asyncio.sleep(max(1.0, 5 * (time.monotonic() - began)))  # looking is work, too

    async def _verdict(self, database_url: str, others: Set[bytes]) -> Verdict:
        connection = await asyncpg.connect(database_url, server_settings={"search_path": "adserve"})
        try:
            rows = await connection.fetch(STORED, timeout=QUERY_S)
        finally:
            await connection.close()
        stored: dict[bytes, int] = {}
        twice = misbilled = 0
        for ticket, outcome, billed_micros, price_micros in rows:
            if ticket in others:
                continue
            twice += ticket in stored
            stored[ticket] = billed_micros
            said = self.acknowledged.get(ticket)
            right = price_micros if outcome == "recorded" else 0
            misbilled += billed_micros != right or said not in (None, billed_micros)
        return Verdict(
            acknowledged=len(self.acknowledged),
            stored=len(stored),
            lost=len(self.acknowledged.keys() - stored.keys()),
            twice=twice,
            foreign=len(stored.keys() - self.sent),
            misbilled=misbilled,
            billed_micros=sum(stored.values()),
        )


def roomy(home: Path) -> Path:
    path = home / "settings.toml"
    path.write_text(ROOMY)
    return path


async def amid(flood: Flood, impressions: int, faults: list[Callable[[], Awaitable[None]]]) -> int:
    """Runs a flood and lets the faults happen one after the other, evenly over it: all of them amid calls, and none once the time
    that there is for it is over. Answers how many happened."""
    happened = 0
    ends_s = time.monotonic() + WITHIN_S
    running = asyncio.create_task(flood.run())
    try:
        for nth, fault in enumerate(faults, 1):
            due = impressions * nth // (len(faults) + 1)
            while (  # noqa: ASYNC110 - seen from outside
                len(flood.acknowledged) < due and time.monotonic() < ends_s and not running.done()
            ):
                await asyncio.sleep(0.005)
            if time.monotonic() < ends_s:
                await fault()
                happened += 1
        flood.goal = impressions
        _, unfinished = await asyncio.wait({running}, timeout=max(0.0, ends_s - time.monotonic()))
        if unfinished:
            flood.goal = 0
        await running
        return happened
    finally:
        flood.stopped = True
        await asyncio.gather(running, return_exceptions=True)
