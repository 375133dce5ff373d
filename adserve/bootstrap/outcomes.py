"""What ramps are judged by, put together: the log of assignments, the API of outcomes, and the tasks that keep both."""

import time
from collections.abc import Callable, Mapping
from uuid import UUID

from prometheus_client import Counter

from adserve.api.outcomes import OutcomesApi
from adserve.background import Task
from adserve.database.pools import Pools
from adserve.domain.surfaces import Surface
from adserve.domain.time import DAY_MS, Clock
from adserve.limits.erased import Erased
from adserve.metering.pseudonyms import Pseudonyms
from adserve.rollout.assignments import AssignmentLog
from adserve.rollout.figures import Figures
from adserve.selection.slots import Bounds, Parts
from adserve.selection.state import View
from adserve.selection.watched import Watched
from adserve.store.outcomes import Outcomes

ASSIGNMENTS_SHED = Counter(
    "adserve_assignments_shed", "Viewers of an arm of a ramp who were not written down, as too many waited."
)

ASSIGNMENTS_S = 1.0
FIGURES_S = 5.0
EVENTS_S = 10.0
FORGET_S = 60.0


class Judged:
    """`off_pace` is what `Figures` asks; `view` gives the newest one."""

    def __init__(
        self,
        pools: Pools,
        replica: UUID,
        erased: Erased,
        off_pace: Callable[[int], tuple[int, float]],
        view: Callable[[], View],
    ) -> None:
        self.store = Outcomes(pools.recorder, replica)
        self.assignments = AssignmentLog(self.store, erased.covers, ASSIGNMENTS_SHED.inc)
        self.figures = Figures(self.store, off_pace)
        self._erased = erased
        self._view = view

    def watched(self, parts: Parts, clock: Clock, draw: Callable[[], int], bounds: Bounds) -> Watched:
        return Watched(
            parts,
            clock,
            draw,
            bounds,
            assignments=self.assignments,
            figures=self.figures,
            seconds=time.perf_counter,
        )

    def tasks(self, kept_days: int) -> tuple[Task, ...]:
        async def forget(now_ms: int) -> None:
            await self.store.forget(now_ms - kept_days * DAY_MS, now_ms)

        return (
            Task("assignments", self.assignments.step, ASSIGNMENTS_S),
            Task("ramps' figures", self.figures.step, FIGURES_S),
            Task("ramps' events", self.count, EVENTS_S),
            Task("old outcomes", forget, FORGET_S),
        )

    def api(self, pseudonyms: Pseudonyms, surfaces: Mapping[str, Surface], clock: Clock) -> OutcomesApi:
        groups = {name: surface.group for name, surface in surfaces.items()}
        return OutcomesApi(self.store, pseudonyms, self._view, groups, self._erased.covers, clock)

    async def count(self, now_ms: int) -> None:
        """What came of ads that the exposed were shown, and the moments with it. A step that cannot be counted does not keep
        the others from being: its failure is raised in the end."""
        failed: list[Exception] = []
        stages = self._view().snapshot.stages
        for surface, stage in {(surface, stage) for (surface, _), stage in stages.items()}:
            try:
                await self.store.count_events(surface, stage, now_ms)
            except Exception as error:
                failed.append(error)
        await self.store.compact()
        if failed:
            raise failed[0]

    async def hand_over(self, now_ms: int) -> None:
        await self.assignments.step(now_ms)
        await self.figures.step(now_ms)
