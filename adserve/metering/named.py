"""Asks the counters only of those who have a name: an erased viewer's event counts, and leaves no trace."""

from collections.abc import Coroutine
from typing import Any

from adserve.domain.tickets import Ticket
from adserve.metering.intake import Counters


class Named:
    """Counters before which a ticket may be nameless. Such a one was within its caps when it was placed."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters

    @property
    def epoch(self) -> int:
        return self._counters.epoch

    def confirm(self, ticket: Ticket, at_ms: int, now_ms: int) -> Coroutine[Any, Any, bool]:
        return self._counters.confirm(ticket, at_ms, now_ms) if ticket.viewer_cap else _yes()

    async def doubt(self, ticket: Ticket) -> None:
        if ticket.viewer_cap:
            await self._counters.doubt(ticket)

    async def hide(self, ticket: Ticket, at_ms: int) -> None:
        if ticket.viewer_cap:
            await self._counters.hide(ticket, at_ms)


async def _yes() -> bool:
    return True
