"""Viewers who were erased: nothing that was decided for them before that may bring them back."""

from collections.abc import Mapping
from hashlib import sha256

from msgspec.structs import replace

from adserve.domain.events import Event
from adserve.domain.tickets import Ticket
from adserve.domain.traffic import NOWHERE

NOT_YET_MS = 1 << 62
"""The cut of an erasure that goes on: whatever is decided meanwhile is of before."""


def tombstone_of(viewer: bytes) -> bytes:
    """What stands for an erased viewer's pseudonym and does not tell it."""
    return sha256(viewer).digest()


class Erased:
    """The tombstones that this process knows, each with the moment from which on the viewer is somebody new."""

    def __init__(self) -> None:
        self._cuts_ms: Mapping[bytes, int] = {}
        self._latest_ms = 0

    def learn(self, cuts_ms: Mapping[bytes, int]) -> None:
        """All of them, in place of those known."""
        self._cuts_ms = cuts_ms
        self._latest_ms = max(cuts_ms.values(), default=0)

    def covers(self, viewer: bytes, at_ms: int) -> bool:
        """Whether what is decided for the viewer at that moment is forgotten."""
        return at_ms < self._latest_ms and at_ms < self._cuts_ms.get(tombstone_of(viewer), 0)

    def strip(self, ticket: Ticket) -> Ticket:
        """Without its viewer's keys, where the viewer was erased since it was issued."""
        if self.covers(ticket.viewer_cap, ticket.issued_at_ms):
            return nameless(ticket)
        return ticket


def nameless(ticket: Ticket) -> Ticket:
    return replace(ticket, viewer_cap=b"", viewer_log=b"")


def from_nobody(event: Event) -> Event:
    """Without the viewer's keys, nor where it came from."""
    verdict = event.verdict._replace(origin=NOWHERE)
    return replace(event, ticket=nameless(event.ticket), verdict=verdict)
