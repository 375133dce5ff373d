"""Notes which viewers a step compares, off the path of whoever asks for slots: in memory, and every second to the store."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from adserve.domain.rollouts import Stage
from adserve.domain.time import HOUR_MS
from adserve.rollout.arms import Standing

WAITING_MAX = 20_000
SEEN_MAX = 100_000
"""Viewers who need not be written again, by and large; the store writes each of them once in any case."""
SEEN_FOR_MS = HOUR_MS


class Assignment(NamedTuple):
    """`viewer` is the pseudonym for caps."""

    standing: Standing
    viewer: bytes
    at_ms: int


class Store(Protocol):
    async def assign(self, assignments: Sequence[Assignment]) -> None:
        """Writes each viewer of a step once. May be repeated."""
        ...


class AssignmentLog:
    """What is more than WAITING_MAX is shed, which is counted: both arms alike, so that it tells nothing of either.

    `forgotten` says of a viewer's pseudonym and a moment whether nothing of then may be kept.
    """

    def __init__(
        self, store: Store, forgotten: Callable[[bytes, int], bool], shed: Callable[[], object]
    ) -> None:
        self._store = store
        self._forgotten = forgotten
        self._shed = shed
        self._waiting: list[Assignment] = []
        self._seen: dict[Stage, set[bytes]] = {}
        self._seen_before: dict[Stage, set[bytes]] = {}
        self._turned_ms = 0
        self._count = 0

    def note(self, standing: Standing, viewer: bytes, now_ms: int) -> None:
        seen = self._seen.get(standing.stage)
        if seen is None:
            seen = self._seen[standing.stage] = set()
        if viewer in seen or viewer in self._seen_before.get(standing.stage, ()):
            return
        if len(self._waiting) >= WAITING_MAX:
            self._shed()
            return
        if self._forgotten(viewer, now_ms):
            return
        self._waiting.append(Assignment(standing, viewer, now_ms))
        seen.add(viewer)
        self._count += 1

    async def step(self, now_ms: int) -> None:
        """Writes what waits. What could not be written waits on."""
        if self._count >= SEEN_MAX or now_ms - self._turned_ms >= SEEN_FOR_MS:
            self._seen_before, self._seen, self._turned_ms, self._count = self._seen, {}, now_ms, 0
        written = tuple(self._waiting)
        if written:
            await self._store.assign(written)
            done = set(written)  # an erasure meanwhile may have taken some of them away
            self._waiting = [each for each in self._waiting if each not in done]

    async def erase(self, viewer: bytes) -> None:
        self._waiting[:] = [each for each in self._waiting if each.viewer != viewer]
        for seen in (*self._seen.values(), *self._seen_before.values()):
            seen.discard(viewer)
