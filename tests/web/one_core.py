"""A core, the queue before it, and those who ask, under a virtual clock: what comes of a limiter, each time the same.

As in the service, a turn of the event loop reads what has come, refuses or admits each, then answers what it has admitted.
"""

import heapq
import random
from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from adserve.web.limiter import WINDOW_S, Limiter

REFUSAL_S = 0.00002
DEADLINE_S = 0.03
NETWORK_S = 0.00005
"""Until one who was answered asks again."""


class Stall(NamedTuple):
    at_s: float
    seconds: float


class Seen(NamedTuple):
    """`good` are the answers in time, by all that the core could give."""

    good: float
    refused: float
    p99_s: float


class Core:
    """`service_s` is the work of a request, after which its answer waits for `elsewhere_s` without the core; others have the
    core for the share `robbed` of the time. Stalls are the process's own work."""

    def __init__(
        self,
        kind: type[Limiter],
        *,
        service_s: float = 0.00025,
        elsewhere_s: float = 0.0,
        robbed: float = 0.0,
        stalls: Iterable[Stall] = (),
    ) -> None:
        self._now_s = self._worked_s = 0.0
        self.limiter = kind(lambda: self._now_s, lambda: self._worked_s)
        self._service_s = service_s
        self._elsewhere_s = elsewhere_s
        self._robbed = robbed
        self._stalls = deque(stalls)
        self._chance = random.Random(1)
        self._step_s = WINDOW_S
        self._coming: list[float] = []
        self._leaving: deque[tuple[float, float, float]] = deque()  # when it is answered, came, and was read
        self._again = False
        self._latencies_s: list[float] = []
        self._refused = 0

    async def closed(self, callers: int, seconds: float) -> Seen:
        """Each asks again as soon as it has an answer, whatever it is."""
        return await self._serve([self._now_s] * callers, seconds, again=True)

    async def open(self, times: float, seconds: float) -> Seen:
        """So many times as many as the core can answer, whatever becomes of them."""
        per_s = times * (1 - self._robbed) / self._service_s
        return await self._serve(list(self._moments(per_s, self._now_s + seconds)), seconds, again=False)

    def _moments(self, per_s: float, ends_s: float) -> Iterator[float]:
        at_s = self._now_s
        while (at_s := at_s + self._chance.expovariate(per_s)) < ends_s:
            yield at_s

    async def _serve(self, coming: list[float], seconds: float, *, again: bool) -> Seen:
        self._coming, self._again, self._latencies_s, self._refused = coming, again, [], 0
        ends_s = self._now_s + seconds
        while self._now_s < ends_s:
            self._rest()
            await self._stall_and_step()
            self._turn()
        good = sum(one_s <= DEADLINE_S for one_s in self._latencies_s)
        ordered = sorted(self._latencies_s)
        return Seen(
            good * self._service_s / (1 - self._robbed) / seconds,
            self._refused / (self._refused + len(ordered)),
            ordered[len(ordered) * 99 // 100],
        )

    def _rest(self) -> None:
        """Until there is something to do."""
        awaited_s = [*self._coming[:1], *(leaving[0] for leaving in list(self._leaving)[:1]), self._step_s]
        self._now_s = max(self._now_s, min(awaited_s))

    async def _stall_and_step(self) -> None:
        if self._stalls and self._now_s >= self._stalls[0].at_s:
            self._work(self._stalls.popleft().seconds)
        if self._now_s >= self._step_s:
            await self.limiter.step(0)
            self._step_s = self._now_s + WINDOW_S

    def _turn(self) -> None:
        began_s, admitted = self._now_s, []
        while self._coming and self._coming[0] <= began_s:
            came_s = heapq.heappop(self._coming)
            if self.limiter.admit():
                admitted.append((came_s, self._now_s))
            else:
                self._work(REFUSAL_S)
                self._refused += 1
                self._answered()
        for came_s, read_s in admitted:
            self._work(self._service_s)
            self._leaving.append((self._now_s + self._elsewhere_s, came_s, read_s))
            self._leave()
        self._leave()

    def _leave(self) -> None:
        while self._leaving and self._leaving[0][0] <= self._now_s:
            _, came_s, read_s = self._leaving.popleft()
            self.limiter.finish(self._now_s - read_s)
            self._latencies_s.append(self._now_s - came_s)
            self._answered()

    def _answered(self) -> None:
        if self._again:
            heapq.heappush(self._coming, self._now_s + NETWORK_S)

    def _work(self, seconds: float) -> None:
        self._worked_s += seconds
        self._now_s += seconds / (1 - self._robbed)
