"""Has every decision behind the demo's feeds explain itself, and remembers the newest one of each viewer."""

from collections import OrderedDict
from typing import Any, Protocol

import msgspec

from adserve.domain.slots import Ask
from adserve.selection.decision import Decision

VIEWERS_REMEMBERED_MAX = 1_000


class Slots(Protocol):
    async def answer(self, ask: Ask) -> Decision: ...


class Witness:
    """Stands before the slots that the wrapper asks, once it has been told which."""

    _slots: Slots

    def __init__(self) -> None:
        self._newest: OrderedDict[str, Decision] = OrderedDict()

    def before(self, slots: Slots) -> Slots:
        self._slots = slots
        return self

    async def answer(self, ask: Ask) -> Decision:
        decision = await self._slots.answer(msgspec.structs.replace(ask, explain=True))
        self._newest[ask.viewer.raw] = decision
        self._newest.move_to_end(ask.viewer.raw)
        if len(self._newest) > VIEWERS_REMEMBERED_MAX:
            self._newest.popitem(last=False)
        return decision

    def explanation(self, viewer: str) -> dict[str, Any] | None:
        """Of the viewer's newest decision; None when there was none."""
        decision = self._newest.get(viewer)
        if decision is None:
            return None
        tickets = [placement.ticket for placement in decision.placements]
        return (decision.explanation or {}) | {
            "decision": str(decision.decision),
            "no_fill": decision.no_fill,
            "placed": [
                {"ad": ticket.ad, "billable": ticket.billable, "model": ticket.model} for ticket in tickets
            ],
        }
