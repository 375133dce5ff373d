"""The pure steps of a decision: `plan` ranks what may be shown, `award` prices what was granted.

With the recorded past and grant, the two repeat a decision exactly.
"""

from collections.abc import Mapping, Sequence
from math import ceil
from uuid import UUID

from msgspec import Struct

from adserve.catalogue.snapshot import Snapshot
from adserve.domain.facts import EXPOSURES_MAX, ViewerFacts, facts_of
from adserve.domain.ramps import Arm
from adserve.domain.slots import Ask, NoFill
from adserve.domain.surfaces import Surface
from adserve.domain.tickets import VIEW_LEAST_MS, Ticket
from adserve.limits.leases import Hold
from adserve.limits.reservations import Grant, Past
from adserve.limits.rules import ALL
from adserve.rollout.arms import stage_at
from adserve.selection.compiled import CompiledAd
from adserve.selection.gates import first_closed
from adserve.selection.placement import open_positions
from adserve.selection.pricing import Contender, clearing_micros
from adserve.selection.ranking import Ranked, predicted, rank
from adserve.selection.state import View

RULES_VERSION = 1


class Plan(Struct, frozen=True, gc=False):
    """The ranked ads and where they may stand; or why there will be none. `viewer` is known once ads were looked for."""

    no_fill: NoFill | None
    positions: tuple[int, ...] = ()
    ranked: Ranked = Ranked()
    floor_micros: int = 0
    viewer: ViewerFacts | None = None


class Held(Struct, frozen=True, gc=False):
    """The `places` among the ranked ads that hold a price, and the `holds`. Of the ads from `reached` on none was
    asked for: there were enough. Those at `paced` had budget, which their pacing keeps for later."""

    places: Sequence[int] = ()
    holds: Sequence[Hold] = ()
    reached: int = 0
    paced: Sequence[int] = ()


class Offer(Struct, frozen=True, gc=False):
    """Everything that `award` needs beside the grant: kept with the reservation, so that a retry is answered alike.

    `contenders` are those whose price is held, with their `holds`; `tickets` wait for `positions`.
    """

    decision: UUID
    viewer_cap: bytes
    viewer_log: bytes
    surface: str
    country: str
    platform: str
    floor_micros: int
    positions: tuple[int, ...]
    contenders: Sequence[Contender]
    holds: Sequence[Hold]
    tickets: Sequence[UUID]
    model: str
    catalogue_version: int
    epoch: int
    issued_at_ms: int
    expires_at_ms: int
    arm: str = Arm.NONE


def plan(ask: Ask, view: View, past: Past, most: int, now_ms: int, seed: int, *, quick: bool = False) -> Plan:
    """Ranks the `most` best ads; or, when it is to be `quick`, as many of the very same as a shelf has ready."""
    closed = first_closed(ask, view, now_ms)
    if closed is not None:
        return Plan(closed)
    surface = view.surfaces[ask.surface]
    positions = open_positions(surface.settings, ask.feed_length, ask.authors, ask.max_ads)
    if not positions:
        return Plan(NoFill.FEED_TOO_SHORT)
    viewer, floor_micros = viewer_of(ask, past.exposures, now_ms), floor_of(ask, surface.settings)
    seen: Mapping[str, int] | None = past.exposures if ask.personalised else None
    if quick:
        shelf = view.shelves[ask.surface].of(viewer, now_ms)
        ranked = shelf.for_viewer(surface, view.rates, seen or {}, floor_micros, seed)
        if ranked is not None:
            # The shelf's own facts, equal to these: whoever looks them up finds them sooner.
            return _planned(positions, bool(shelf.ranked.ads), ranked, floor_micros, shelf.viewer)
    rows = surface.index.match(viewer, now_ms)
    click_rates = predicted(surface, view.rates, rows, viewer, seen)
    ranked = rank(surface, rows, click_rates, floor_micros, most, seed)
    return _planned(positions, len(rows) > 0, ranked, floor_micros, viewer)


def viewer_of(ask: Ask, exposures: Mapping[str, int], now_ms: int) -> ViewerFacts:
    seen = min(exposures.get(ALL, 0), EXPOSURES_MAX)
    return facts_of(ask.context, ask.personalised, now_ms, ask.surface, seen)


def floor_of(ask: Ask, surface: Surface) -> int:
    """In micros for 1,000 impressions."""
    return max(ask.floor_micros, surface.floor_micros_for(ask.context.country))


def _planned(
    positions: tuple[int, ...], some_match: bool, ranked: Ranked, floor_micros: int, viewer: ViewerFacts
) -> Plan:
    no_fill = None if ranked.ads else NoFill.BELOW_FLOOR if some_match else NoFill.NO_ELIGIBLE_AD
    return Plan(no_fill, positions, ranked, floor_micros, viewer)


def hold_micros(compiled: CompiledAd, click_rate: float, click_hold_factor: float) -> int:
    """What an ad holds on its budget: its bid for an impression or view; a click may not come, so its bid counts by
    its probability with a margin."""
    if compiled.event_rate is not None:
        return compiled.bid_micros
    return expected_click_micros(compiled.bid_micros, click_rate, click_hold_factor)


def expected_click_micros(price_micros: int, click_rate: float, click_hold_factor: float) -> int:
    return min(price_micros, max(1, ceil(price_micros * click_rate * click_hold_factor)))


def offer_of(
    ask: Ask, view: View, planned: Plan, held: Held, ids: Sequence[UUID], *, epoch: int, now_ms: int
) -> Offer:
    """`ids` are the decision's own and one for each ticket."""
    ranked = planned.ranked
    return Offer(
        decision=ids[0],
        viewer_cap=ask.viewer.cap,
        viewer_log=ask.viewer.log,
        surface=ask.surface,
        country=ask.context.country or "",
        platform=ask.context.platform or "",
        floor_micros=planned.floor_micros,
        positions=planned.positions,
        contenders=[ranked.contender(place) for place in held.places],
        holds=held.holds,
        tickets=ids[1 : len(planned.positions) + 1],
        model=view.rates.name,
        catalogue_version=view.snapshot.version,
        epoch=epoch,
        issued_at_ms=now_ms,
        expires_at_ms=now_ms + ask.ticket_ttl_s * 1_000,
        arm=_arm_told(ask, view.snapshot) if view.snapshot.stages else Arm.NONE,
    )


def _arm_told(ask: Ask, snapshot: Snapshot) -> Arm:
    """Of a viewer who is shown ads: exposed to whatever ramp moves their percent."""
    rollout = snapshot.rollouts[ask.surface]
    compared = stage_at(snapshot.stages, rollout, ask.surface, ask.context.country) is not None
    return Arm.EXPOSED if compared else Arm.NONE


class Award(Struct, frozen=True, gc=False):
    """A granted contender: `place` is where it stands among the offer's contenders."""

    place: int
    position: int
    ticket: Ticket


def award(offer: Offer, grant: Grant) -> list[Award]:
    """Prices what was granted and gathers the facts that each ticket will seal."""
    ranked = [offer.contenders[place] for place in grant.places]
    awards = []
    for nth, place in enumerate(grant.reserved):
        winner = ranked[nth]
        price = clearing_micros(winner, ranked[nth + 1 :], offer.floor_micros)
        ticket = _ticket(offer, winner, offer.holds[place], nth, price)
        awards.append(Award(place, offer.positions[nth], ticket))
    return awards


def _ticket(offer: Offer, winner: Contender, hold: Hold, nth: int, price: int) -> Ticket:
    ad, campaign = winner.ad, winner.ad.campaign
    return Ticket(
        ticket=offer.tickets[nth],
        decision=offer.decision,
        advertiser=ad.advertiser,
        campaign=campaign.id,
        ad=ad.id,
        creative=ad.creative.id,
        revision=ad.creative.revision,
        viewer_cap=offer.viewer_cap,
        viewer_log=offer.viewer_log,
        price_micros=price,
        currency=campaign.currency,
        billable=campaign.billable,
        lease=hold.lease,
        budget_day=hold.budget_day,
        epoch=offer.epoch,
        surface=offer.surface,
        country=offer.country,
        platform=offer.platform,
        position=offer.positions[nth],
        propensity=1.0,
        model=offer.model,
        catalogue_version=offer.catalogue_version,
        rules_version=RULES_VERSION,
        arm=offer.arm,
        issued_at_ms=offer.issued_at_ms,
        expires_at_ms=offer.expires_at_ms,
        bid_model=campaign.bid_model,
        rules=winner.compiled.sealed_rules,
        labels=campaign.separation,
        view_least_ms=VIEW_LEAST_MS[ad.creative.kind],
    )
