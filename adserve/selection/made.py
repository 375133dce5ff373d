"""A decision as a whole, for whoever tells why it came out so, counts it, or makes it again."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple
from uuid import UUID

import numpy as np
from msgspec import Struct

from adserve.domain.slots import Ask, NoFill
from adserve.limits.reservations import Grant, Past
from adserve.limits.rules import Rule
from adserve.selection.decide import Award, Held, Offer, Plan
from adserve.selection.ranking import Ranked, predicted, rank, values_of
from adserve.selection.state import View


class Made(Struct, frozen=True, gc=False):
    """What one decision read, drew and was given, and what came of it.

    `most` is how many ads it ranked at the most. Without `counted` it could not know the counts of the viewer. `used`
    tells how far each cap of what it placed was used up, where somebody asked for that.
    """

    decision: UUID
    ask: Ask
    view: View
    past: Past
    most: int
    now_ms: int
    seed: int
    counted: bool
    planned: Plan
    no_fill: NoFill | None
    held: Held = Held()
    offer: Offer | None = None
    grant: Grant | None = None
    awards: Sequence[Award] = ()
    used: Mapping[Rule, int] = {}


class Considered(NamedTuple):
    """The best of all ads that matched, also below the floor; how many matched, and how many of them are below it."""

    best: Ranked = Ranked()
    matched: int = 0
    below_floor: int = 0


def considered(made: Made, most: int) -> Considered:
    """With the `most` best ones."""
    viewer = made.planned.viewer
    if viewer is None:
        return Considered()
    surface = made.view.surfaces[made.ask.surface]
    rows = surface.index.match(viewer, made.now_ms)
    seen = made.past.exposures if made.ask.personalised else None
    click_rates = predicted(surface, made.view.rates, rows, viewer, seen)
    below_floor = np.count_nonzero(values_of(surface, rows, click_rates) < made.planned.floor_micros)
    return Considered(rank(surface, rows, click_rates, 0, most, made.seed), len(rows), int(below_floor))
