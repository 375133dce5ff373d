"""How the price of a placement came about, from its decision made again."""

from typing import Literal
from uuid import UUID

from msgspec import Struct

from adserve.selection.made import Made
from adserve.selection.pricing import clearing_micros, rival_of


class RunnerUp(Struct, frozen=True):
    """`ad` and `advertiser` are None for whom it is none of their business."""

    ad: int | None
    advertiser: int | None
    value_micros: float


class Pricing(Struct, frozen=True):
    """`bid_micros` and `price_micros` are per billable event; values and the floor are of 1,000 impressions. The price is the
    part of the bid that is worth what was to be beaten, rounded up; a guaranteed ad pays its own."""

    bid_micros: int
    value_micros: float
    click_rate: float
    floor_micros: int
    runner_up: RunnerUp | None
    set_by: Literal["own_price", "runner_up", "floor"]
    price_micros: int


def pricing_of(made: Made, ticket: UUID) -> Pricing | None:
    """None for a ticket that the decision did not make."""
    nth = next((place for place, given in enumerate(made.awards) if given.ticket.ticket == ticket), None)
    if nth is None or made.offer is None or made.grant is None:
        return None
    winner, *behind = (made.offer.contenders[place] for place in made.grant.places[nth:])
    floor_micros, guaranteed = made.offer.floor_micros, winner.compiled.guaranteed
    rival = rival_of(winner, behind)
    beaten = rival is not None and rival.value_micros > floor_micros
    return Pricing(
        winner.compiled.bid_micros,
        winner.value_micros,
        winner.click_rate,
        floor_micros,
        None if rival is None else RunnerUp(rival.ad.id, rival.ad.advertiser, rival.value_micros),
        "own_price" if guaranteed else "runner_up" if beaten else "floor",
        clearing_micros(winner, behind, floor_micros),
    )
