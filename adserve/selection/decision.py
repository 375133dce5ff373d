"""What a decision answers, and the one bad question that it refuses."""

from typing import Any

from msgspec import Struct

from adserve.domain.ads import Ad
from adserve.domain.ids import DecisionId
from adserve.domain.slots import NoFill
from adserve.domain.tickets import Ticket


class RequestReused(Exception):
    """The caller's `request` id came before with another body."""

    field = "request"

    def __init__(self) -> None:
        super().__init__("came before with another body")


class Placement(Struct, frozen=True, gc=False):
    """An ad at a position: `position` organic items come before it, `token` is its sealed ticket."""

    position: int
    ad: Ad
    ticket: Ticket
    token: str


class Decision(Struct, frozen=True, gc=False):
    """`no_fill` says why when `placements` is empty."""

    decision: DecisionId
    placements: tuple[Placement, ...]
    no_fill: NoFill | None
    explanation: dict[str, Any] | None = None
