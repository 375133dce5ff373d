"""The pure steps of a decision: `plan` ranks what may be shown, `award` prices what was granted.

With the recorded past and grant, the two repeat a decision exactly.
"""

from math import ceil
from uuid import UUID

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from adserve.domain.facts import EXPOSURES_UNKNOWN, ViewerFacts, facts_of
from adserve.domain.ids import derived_uuid7
from adserve.domain.slots import Ask, NoFill
from adserve.domain.tickets import Ticket
from adserve.limits.counters import Grant, Past
from adserve.limits.leases import Hold
from adserve.limits.rules import ALL
from adserve.selection.gates import first_closed
from adserve.selection.index import Rows
from adserve.selection.placement import open_positions
from adserve.selection.pricing import Contender, clearing_micros
from adserve.selection.ranking import Ranked, rank
from adserve.selection.state import CompiledAd, CompiledSurface, View

RULES_VERSION = 1
ARM = "exposed"

EVENT_RATE_MIN = 1e-6
"""No prediction is taken to be less, nor one that is no number: a price per event divides by it."""


class Plan(Struct, frozen=True, gc=False):
    """The ranked ads and where they may stand; or why there will be none."""

    no_fill: NoFill | None
    positions: tuple[int, ...] = ()
    matched: int = 0
    ranked: Ranked = Ranked()


class Held(Struct, frozen=True, gc=False):
    """The `places` among the ranked ads that hold a price, and the `holds`. Of the ads from `reached` on none was
    asked for: there were enough."""

    places: tuple[int, ...] = ()
    holds: tuple[Hold, ...] = ()
    reached: int = 0


class Offer(Struct, frozen=True, gc=False):
    """Everything that `award` needs beside the grant: kept with the reservation, so that a retry is answered alike.

    `contenders` are those whose price is held, with their `holds`; `tickets` wait for `positions`.
    """

    decision: UUID
    ask: Ask
    positions: tuple[int, ...]
    contenders: tuple[Contender, ...]
    holds: tuple[Hold, ...]
    tickets: tuple[UUID, ...]
    model: str
    catalogue_version: int
    epoch: int
    issued_at_ms: int
    expires_at_ms: int


def plan(ask: Ask, view: View, past: Past, most: int, now_ms: int, seed: int) -> Plan:
    closed = first_closed(ask, view, now_ms)
    if closed is not None:
        return Plan(closed)
    surface = view.surfaces[ask.surface]
    positions = open_positions(surface.settings, ask.feed_length, ask.authors, ask.max_ads)
    if not positions:
        return Plan(NoFill.FEED_TOO_SHORT)
    facts = facts_of(ask.context, ask.personalised, now_ms, ask.surface, past.exposures.get(ALL, 0))
    rows = surface.index.match(facts, now_ms)
    if not len(rows):
        return Plan(NoFill.NO_ELIGIBLE_AD, positions)
    click_rates = _click_rates(ask, view, surface, past, facts, rows)
    ranked = rank(surface, rows, click_rates, ask.floor_micros, most, seed)
    return Plan(None if ranked.ads else NoFill.BELOW_FLOOR, positions, len(rows), ranked)


def _click_rates(
    ask: Ask, view: View, surface: CompiledSurface, past: Past, facts: ViewerFacts, rows: Rows
) -> NDArray[np.float64]:
    """Without consent the viewer's history is unknown: it then tells nothing, which is not the same as none."""
    seen = past.exposures
    if not ask.personalised:
        exposures = np.full(len(rows), EXPOSURES_UNKNOWN, dtype=np.int64)
    elif seen:
        campaigns = surface.campaign_keys
        exposures = np.array([seen.get(campaigns[row], 0) for row in rows.tolist()], dtype=np.int64)
    else:
        exposures = np.zeros(len(rows), dtype=np.int64)
    return np.fmax(view.rates.click(surface.prepared, rows, facts, exposures), EVENT_RATE_MIN)


def ticket_ids(now_ms: int, seed: int, count: int) -> tuple[UUID, ...]:
    return tuple(derived_uuid7(now_ms, seed, index + 1) for index in range(count))


def hold_micros(compiled: CompiledAd, click_rate: float, click_hold_factor: float) -> int:
    """What an ad holds on its budget: its bid for an impression or view; a click may not come, so its bid counts by
    its probability with a margin."""
    if compiled.event_rate is not None:
        return compiled.bid_micros
    return expected_click_micros(compiled.bid_micros, click_rate, click_hold_factor)


def expected_click_micros(price_micros: int, click_rate: float, click_hold_factor: float) -> int:
    return min(price_micros, max(1, ceil(price_micros * click_rate * click_hold_factor)))


class Award(Struct, frozen=True, gc=False):
    """A granted contender: `place` is where it stands among the offer's contenders."""

    place: int
    position: int
    ticket: Ticket


def award(offer: Offer, grant: Grant) -> list[Award]:
    """Prices what was granted and gathers the facts that each ticket will seal."""
    granted = [offer.contenders[place] for place in grant.reserved]
    ranked = granted if grant.runner_up is None else [*granted, offer.contenders[grant.runner_up]]
    awards = []
    for nth, (place, winner) in enumerate(zip(grant.reserved, granted, strict=True)):
        price = clearing_micros(winner, ranked[nth + 1 :], offer.ask.floor_micros)
        ticket = _ticket(offer, winner, offer.holds[place], nth, price)
        awards.append(Award(place, offer.positions[nth], ticket))
    return awards


def _ticket(offer: Offer, winner: Contender, hold: Hold, nth: int, price: int) -> Ticket:
    ask, ad, campaign = offer.ask, winner.ad, winner.ad.campaign
    return Ticket(
        ticket=offer.tickets[nth],
        decision=offer.decision,
        advertiser=ad.advertiser,
        campaign=campaign.id,
        ad=ad.id,
        creative=ad.creative.id,
        revision=ad.creative.revision,
        viewer_cap=ask.viewer.cap,
        viewer_log=ask.viewer.log,
        price_micros=price,
        currency=campaign.currency,
        billable=campaign.billable,
        lease=hold.lease,
        budget_day=hold.budget_day,
        epoch=offer.epoch,
        surface=ask.surface,
        country=ask.context.country or "",
        platform=ask.context.platform or "",
        position=offer.positions[nth],
        propensity=1.0,
        model=offer.model,
        catalogue_version=offer.catalogue_version,
        rules_version=RULES_VERSION,
        arm=ARM,
        issued_at_ms=offer.issued_at_ms,
        expires_at_ms=offer.expires_at_ms,
        bid_model=campaign.bid_model,
        rules=winner.compiled.sealed_rules,
        labels=campaign.separation,
    )
