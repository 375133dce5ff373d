"""Rates a stored event again, from nothing but what is stored of it."""

from typing import NamedTuple

from adserve.domain.events import CONFIRMING, EventKind, Outcome


class RatedEvent(NamedTuple):
    """An event with its ticket's facts, as it is stored. `outcome` and `billed_micros` are what it was rated then."""

    kind: EventKind
    outcome: Outcome
    billed_micros: int
    billable: str
    price_micros: int
    received_at_ms: int
    expires_at_ms: int


class Rating(NamedTuple):
    outcome: Outcome
    billed_micros: int
    reason: str


def rate_again(event: RatedEvent) -> Rating:
    """In the order of the contract. What the counters, the traffic rules and the lease said at that moment is taken from
    the outcome, as far as they had a say."""
    if event.received_at_ms > event.expires_at_ms:
        return Rating(Outcome.LATE, 0, "it came after its ticket had expired")
    if event.outcome is Outcome.OVER_CAP and event.kind in CONFIRMING:
        return Rating(Outcome.OVER_CAP, 0, "a frequency cap had no room for it")
    if event.outcome is Outcome.INVALID_TRAFFIC:
        return Rating(Outcome.INVALID_TRAFFIC, 0, "a rule found it to be invalid traffic")
    if event.kind != event.billable:
        return Rating(Outcome.UNBILLED_KIND, 0, f"its ticket bills the {event.billable}")
    if event.outcome is Outcome.OVER_BUDGET:
        return Rating(Outcome.OVER_BUDGET, 0, "its lease had not enough left")
    return Rating(
        Outcome.RECORDED, event.price_micros, "it is what its ticket bills, at the price sealed in it"
    )
