"""Slots while a ramp is under way: who is compared is noted, and how the exposed are served is measured.

While none is, a request costs one look more. Viewers of both arms are noted by the same trigger, before anything is decided: what
happens to a decision must not tell the arms apart.
"""

import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from adserve.catalogue.snapshot import Snapshot
from adserve.domain.ramps import Arm
from adserve.domain.slots import Ask
from adserve.domain.tickets import Ticket
from adserve.domain.time import SECOND_MS, Clock
from adserve.rollout.arms import Standing, stage_at, standing_of
from adserve.rollout.assignments import AssignmentLog
from adserve.rollout.figures import Figures
from adserve.selection.decision import Decision
from adserve.selection.made import Made
from adserve.selection.slots import Bounds, Parts, Slots

log = logging.getLogger(__name__)


class Watched:
    """`seconds` is a clock that never goes back."""

    def __init__(
        self,
        parts: Parts,
        clock: Clock,
        draw: Callable[[], int],
        bounds: Bounds,
        *,
        assignments: AssignmentLog,
        figures: Figures,
        seconds: Callable[[], float],
    ) -> None:
        self._slots = Slots(parts, clock, draw, bounds)
        self._measured = Slots(parts._replace(notes=(*parts.notes, self._note)), clock, draw, bounds)
        self._view = parts.view
        self._clock = clock
        self._assignments = assignments
        self._figures = figures
        self._seconds = seconds
        self._watching = False

    def follow(self, snapshot: Snapshot) -> None:
        """Of the snapshot that decisions read from now on."""
        self._watching = bool(snapshot.stages)

    def answer(self, ask: Ask) -> Coroutine[Any, Any, Decision]:
        """As `Slots.answer`."""
        return self._watch(ask) if self._watching else self._slots.answer(ask)

    async def release(self, tickets: Sequence[Ticket]) -> int:
        return await self._slots.release(tickets)

    def wrapped(self, ask: Ask, took_s: float) -> None:
        """How long the wrapper has kept a feed."""
        standing = self._standing(ask, self._clock()) if self._watching else None
        if standing is not None and standing.arm is Arm.EXPOSED:
            self._figures.wrapped(standing.stage.ramp, took_s * SECOND_MS, self._clock())

    async def _watch(self, ask: Ask) -> Decision:
        standing = self._noted(ask)
        if standing is None or standing.arm is not Arm.EXPOSED:
            return await self._slots.answer(ask)
        began_s = self._seconds()
        decision = await self._measured.answer(ask)
        took_ms = (self._seconds() - began_s) * SECOND_MS
        self._figures.decided(standing.stage.ramp, decision.no_fill, took_ms, self._clock())
        return decision

    def _noted(self, ask: Ask) -> Standing | None:
        now_ms = self._clock()
        try:
            standing = self._standing(ask, now_ms)
            if standing is not None:
                self._assignments.note(standing, ask.viewer.cap, now_ms)
        except Exception:
            log.exception("a viewer could not be compared")
            return None
        return standing

    def _standing(self, ask: Ask, now_ms: int) -> Standing | None:
        """Nobody is compared while nobody may see ads."""
        view = self._view()
        if not view.shows_ads(now_ms):
            return None
        return standing_of(
            ask.viewer.raw,
            view.surfaces[ask.surface].settings.group,
            view.snapshot.stages,
            view.snapshot.rollout_of(ask.surface),
            ask.surface,
            ask.context.country,
        )

    def _note(self, made: Made) -> None:
        """The click rates that were predicted of what was placed: 0 where nobody pays for clicks."""
        if made.offer is None or not made.awards:
            return
        snapshot, ask = made.view.snapshot, made.ask
        rollout = snapshot.rollout_of(ask.surface)
        stage = stage_at(snapshot.stages, rollout, ask.surface, ask.context.country)
        if stage is not None:
            rates = [made.offer.contenders[given.place].click_rate for given in made.awards]
            self._figures.placed(stage.ramp, [rate for rate in rates if rate], self._clock())
