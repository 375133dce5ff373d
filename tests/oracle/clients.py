"""Clients at once: they ask, ask again, release, and report in time, late, twice, or after they had released."""

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from stack import START_MS, Stack

from adserve.domain.slots import Ask, Context, NoFill, Viewer
from adserve.domain.tickets import Ticket
from adserve.domain.time import DAY_MS, HOUR_MS, SECOND_MS
from adserve.limits.rules import GRACE_MS
from adserve.metering.errors import RecorderUnavailable
from adserve.metering.intake import Report

CLIENTS = 8
VIEWERS = 40
LASTING = 20
REMEMBERED = 3_000
LATELY = 40
SPEED = 50
TTLS_S = (60, 300, 3_600, 86_400)
MOMENTS_MS = (0, 0, 0, 1, 20, 300)
PAUSES_MS = (0, SECOND_MS, 10 * SECOND_MS, 60 * SECOND_MS - 1, 60 * SECOND_MS, 600 * SECOND_MS, HOUR_MS)
LONG_PAUSES_MS = (HOUR_MS, DAY_MS, 3 * DAY_MS)
CARE_EVERY = 200
UNANSWERED = (NoFill.DEADLINE, NoFill.DEGRADED)


class Clock:
    """Stands still until a client lets time pass."""

    stay_ms = 5 * DAY_MS

    def __init__(self) -> None:
        self.now_ms = START_MS

    def __call__(self) -> int:
        return self.now_ms

    def pass_some(self, chance: random.Random) -> None:
        self.now_ms += chance.choice(MOMENTS_MS)

    def pass_much(self, chance: random.Random) -> None:
        """While nothing is on its way: what is takes seconds at most, and less than that is promised for longer."""
        rarely = chance.random() < 0.01
        self.now_ms += chance.choice(LONG_PAUSES_MS if rarely else PAUSES_MS)


class SpedClock(Clock):
    """The same in every process that is told the same beginning. Slow enough that a busy machine does not put processes
    further apart than the grace of a reservation."""

    stay_ms = 60 * SECOND_MS

    def __init__(self, begun_s: float) -> None:
        self._begun_s = begun_s

    def __call__(self) -> int:
        return START_MS + round((time.time() - self._begun_s) * SECOND_MS * SPEED)

    def pass_some(self, chance: random.Random) -> None:
        pass

    def pass_much(self, chance: random.Random) -> None:
        pass


class Given(NamedTuple):
    ticket: Ticket
    token: str


class Asked(NamedTuple):
    """`kept_until_s` is when Redis forgets the answer by its own clock, which goes on while the machine, and ours with it, stands still."""

    ask: Ask
    tickets: tuple[str, ...]
    expires_at_ms: int
    kept_until_s: float


class Clients:
    """Of one process from its start to its crash. What they hold survives it: `given` are tickets still out there."""

    def __init__(self, clock: Clock, chance: random.Random, given: deque[Given]) -> None:
        self._clock = clock
        self._chance = chance
        self._given = given
        self._asked: deque[Asked] = deque(maxlen=LATELY)
        self._released: set[str] = set()
        self._latest = 0
        self._together = asyncio.Barrier(CLIENTS)
        self.decided = 0
        self.placed = 0
        self.repeated = self.unanswered = 0

    async def use(self, stack: Stack, decisions: int, now_and_then: Callable[[], None]) -> None:
        """Until there were enough; then all are cut off wherever they are."""
        alone = [asyncio.create_task(self._client(stack, decisions, now_and_then)) for _ in range(CLIENTS)]
        try:
            done, _ = await asyncio.wait(alone, return_when=asyncio.FIRST_COMPLETED)
            for one in done:
                one.result()
        finally:
            for one in alone:
                one.cancel()
            await asyncio.gather(*alone, return_exceptions=True)

    async def _client(self, stack: Stack, decisions: int, now_and_then: Callable[[], None]) -> None:
        chance = self._chance
        while self.decided < decisions:
            if await self._together.wait() == 0:
                self._clock.pass_much(chance)
            await self._together.wait()
            self._clock.pass_some(chance)
            await self._decide(stack)
            if self.decided % CARE_EVERY == 0:
                stack.book.expire(self._clock())
                now_and_then()
            for _ in range(chance.randrange(3)):
                await self._report(stack)
            if chance.random() < 0.1:
                await self._release(stack)
            await asyncio.sleep(0)

    async def _decide(self, stack: Stack) -> None:
        chance = self._chance
        self.decided += 1
        if self._asked and chance.random() < 0.1:
            await self._ask_again(stack, chance.choice(self._asked))
            return
        number = self._latest = self._viewer()
        pseudonym = f"viewer {number}".encode().ljust(16, b".")[::-1]
        ask = Ask(
            viewer=Viewer(str(number), pseudonym, pseudonym), surface="status", feed_length=30, authors=None,
            max_ads=chance.randint(1, 3), context=Context(), deadline_ms=60_000, ticket_ttl_s=chance.choice(TTLS_S),
            request=f"request {chance.getrandbits(64)}" if chance.random() < 0.5 else None,
        )  # fmt: skip  # laid out as rows
        kept_until_s = time.time() + ask.ticket_ttl_s + GRACE_MS / 1_000
        placements = (await stack.slots.answer(ask)).placements
        self.placed += len(placements)
        self._given += [Given(one.ticket, one.token) for one in placements]
        if ask.request is not None and placements:
            tokens = tuple(one.token for one in placements)
            self._asked.append(Asked(ask, tokens, placements[0].ticket.expires_at_ms, kept_until_s))

    def _viewer(self) -> int:
        """Often the one that another client asks for at this moment. Some come all the time, most for a while: a history of
        years would only make the test slow."""
        if self._chance.random() < 0.3:
            return self._latest
        if self._chance.random() < 0.1:
            return self._chance.randrange(LASTING)
        return LASTING + self._clock() // self._clock.stay_ms * VIEWERS + self._chance.randrange(VIEWERS)

    async def _ask_again(self, stack: Stack, asked: Asked) -> None:
        """Its answer or, where the counters could not be asked in time, none: never another one."""
        again = await stack.slots.answer(asked.ask)
        if not again.placements and again.no_fill in UNANSWERED:
            self.unanswered += 1
        elif self._clock() <= asked.expires_at_ms and time.time() < asked.kept_until_s:
            assert tuple(one.token for one in again.placements) == asked.tickets, "a retry got another answer"
            self.repeated += 1

    async def _report(self, stack: Stack) -> None:
        if not self._given:
            return
        reports = [
            Report(self._one().token, self._chance.choice(("impression", "impression", "view")))
            for _ in range(self._chance.randint(1, 3))
        ]
        if self._chance.random() < 0.1:
            reports.append(reports[0])
        with suppress(RecorderUnavailable):  # it may be sent again
            await stack.intake.take(reports, self._clock())

    async def _release(self, stack: Stack) -> None:
        if self._given:
            await stack.slots.release([self._one().ticket for _ in range(self._chance.randint(1, 3))])

    def _one(self) -> Given:
        """Most often one of the last; what was shown or released may come again."""
        lately = self._chance.random() < 0.8
        return self._given[
            -1 - self._chance.randrange(min(LATELY if lately else REMEMBERED, len(self._given)))
        ]
