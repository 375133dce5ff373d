"""The way of a slot request: recall, plan, hold, reserve, award."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from adserve.domain.ids import DecisionId, derived_uuid7
from adserve.domain.slots import Ask, NoFill
from adserve.domain.tickets import Ticket
from adserve.domain.time import Clock
from adserve.limits.counters import Grant, Past, Reservation
from adserve.limits.leases import Hold, LeaseBook
from adserve.selection.decide import (
    Award,
    Held,
    Offer,
    Plan,
    award,
    expected_click_micros,
    hold_micros,
    plan,
    ticket_ids,
)
from adserve.selection.decision import Decision, Placement, RequestReused
from adserve.selection.explain import explain
from adserve.selection.ranking import Ranked
from adserve.selection.state import View

log = logging.getLogger(__name__)

RANKED_PER_CANDIDATE = 4
"""How many more ads are ranked than become candidates: some will have no budget left to hold."""

FEW_PER_POSITION = 3
"""So many candidates fill a position and price it unless caps stand in the way: only then are more offered."""


class Counters(Protocol):
    epoch: int

    async def recall(self, viewer: bytes, request: str | None, now_ms: int) -> Past: ...

    async def reserve(self, viewer: bytes, ask: Reservation, now_ms: int) -> Grant: ...

    async def release(self, ticket: Ticket, now_ms: int) -> bool: ...

    async def usage(
        self, viewer: bytes, keys_windows: Sequence[tuple[str, int]], now_ms: int
    ) -> list[int]: ...


class Sealer(Protocol):
    def seal(self, ticket: Ticket) -> str: ...


class Bounds(NamedTuple):
    """At most `candidates_max` ads hold budget for a decision; a click's hold is its expected price times the factor."""

    candidates_max: int = 32
    click_hold_factor: float = 2.0


class _TooFew(Exception):
    """Caps stand in the way of the first few candidates, and there are more."""


class Slots:
    """Answers slot requests. `view` gives the newest snapshot, `draw` 128 bits of chance a decision.

    `may_serve` says whether our counters are the only ones: without that, nothing is placed.
    """

    def __init__(
        self,
        view: Callable[[], View],
        counters: Counters,
        leases: LeaseBook,
        sealer: Sealer,
        clock: Clock,
        draw: Callable[[], int],
        *,
        may_serve: Callable[[], bool],
        bounds: Bounds,
    ) -> None:
        self._view = view
        self._counters = counters
        self._leases = leases
        self._sealer = sealer
        self._clock = clock
        self._draw = draw
        self._may_serve = may_serve
        self._bounds = bounds

    async def answer(self, ask: Ask) -> Decision:
        """Decides within the deadline. Any fault of ours is a decision without ads.

        Raises RequestReused when the caller's `request` came before with another body, and nothing else.
        """
        now_ms, seed = self._clock(), self._draw()
        decision = DecisionId(derived_uuid7(now_ms, seed, 0))
        if not self._may_serve():
            return Decision(decision, (), NoFill.DEGRADED)
        try:
            async with asyncio.timeout(ask.deadline_ms / 1_000):
                return await self._decide(ask, decision, now_ms, seed)
        except RequestReused:
            raise
        except TimeoutError:
            return Decision(decision, (), NoFill.DEADLINE)
        except Exception:
            log.exception("decision failed", extra={"decision": str(decision)})
            return Decision(decision, (), NoFill.DEGRADED)

    async def release(self, tickets: Sequence[Ticket]) -> int:
        """Gives back the caps and budgets of placements that will not be shown; answers how many were held."""
        released = 0
        for ticket in tickets:
            if await self._counters.release(ticket, self._clock()):
                self._leases.release(ticket.ticket)
                released += 1
        return released

    async def _decide(self, ask: Ask, decision: DecisionId, now_ms: int, seed: int) -> Decision:
        view = self._view()
        past = await self._counters.recall(ask.viewer.cap, ask.request, now_ms)
        if past.earlier is not None and not view.paused:  # the switch beats every promise to a retry
            return self._repeat(past.earlier.digest, past.earlier.memo, past.earlier.grant, ask)
        planned = plan(ask, view, past, self._bounds.candidates_max * RANKED_PER_CANDIDATE, now_ms, seed)
        if planned.no_fill is not None:
            explanation = explain(ask, view, planned) if ask.explain else None
            return Decision(decision, (), planned.no_fill, explanation)
        few = FEW_PER_POSITION * len(planned.positions)
        if few < self._bounds.candidates_max and not ask.explain:
            try:
                return await self._place(ask, view, planned, decision, now_ms, seed, few)
            except _TooFew:
                pass
        return await self._place(ask, view, planned, decision, now_ms, seed, self._bounds.candidates_max)

    async def _place(
        self, ask: Ask, view: View, planned: Plan, decision: DecisionId, now_ms: int, seed: int, most: int
    ) -> Decision:
        """Offers the first `most` ads that hold their price."""
        held = self._hold(planned.ranked, most, now_ms)
        if not held.places:
            explanation = explain(ask, view, planned, held) if ask.explain else None
            return Decision(decision, (), NoFill.BUDGET_SPENT, explanation)
        offer = Offer(
            decision=decision,
            ask=ask,
            positions=planned.positions,
            contenders=tuple(map(planned.ranked.contender, held.places)),
            holds=held.holds,
            tickets=ticket_ids(now_ms, seed, len(planned.positions)),
            model=view.rates.name,
            catalogue_version=view.snapshot.version,
            epoch=self._counters.epoch,
            issued_at_ms=now_ms,
            expires_at_ms=now_ms + ask.ticket_ttl_s * 1_000,
        )
        whole = most < self._bounds.candidates_max and held.reached < len(planned.ranked.ads)
        kept: set[int] = set()
        try:
            grant = await self._counters.reserve(ask.viewer.cap, _reservation(offer, whole), now_ms)
            if whole and not grant.reserved:
                raise _TooFew
            awards = award(offer, grant)
            placements = self._seal(offer, awards)
            explanation = None
            if ask.explain:
                explanation = await self._explain(view, planned, held, offer, grant, awards)
            for given in awards:  # last, as nothing fails after it: what stays held is answered
                self._keep(offer, given)
                kept.add(given.place)
        finally:
            for place, hold in enumerate(held.holds):
                if place not in kept:
                    self._leases.give_back(hold)
        no_fill = None if awards else NoFill.FREQUENCY_CAPPED
        return Decision(decision, placements, no_fill, explanation)

    def _hold(self, ranked: Ranked, most: int, now_ms: int) -> Held:
        """Holds the prices of the first `most` ads whose campaigns have room for them."""
        places: list[int] = []
        holds: list[Hold] = []
        reached = len(ranked.ads)
        for place, compiled in enumerate(ranked.ads):
            amount = hold_micros(compiled, ranked.click_rates[place], self._bounds.click_hold_factor)
            hold = self._leases.hold(compiled.campaign, amount, now_ms)
            if hold is not None:
                places.append(place)
                holds.append(hold)
                if len(places) == most:
                    reached = place + 1
                    break
        return Held(tuple(places), tuple(holds), reached)

    def _keep(self, offer: Offer, given: Award) -> None:
        ticket, winner = given.ticket, offer.contenders[given.place]
        amount = ticket.price_micros
        if ticket.billable == "click":
            amount = expected_click_micros(amount, winner.click_rate, self._bounds.click_hold_factor)
        self._leases.keep(offer.holds[given.place], ticket.ticket, amount, ticket.expires_at_ms)

    def _repeat(self, digest: bytes, offer: Offer, grant: Grant, ask: Ask) -> Decision:
        if digest != ask.digest:
            raise RequestReused
        return Decision(DecisionId(offer.decision), self._seal(offer, award(offer, grant)), None)

    def _seal(self, offer: Offer, awards: Sequence[Award]) -> tuple[Placement, ...]:
        return tuple(
            Placement(
                given.position,
                offer.contenders[given.place].ad,
                given.ticket,
                self._sealer.seal(given.ticket),
            )
            for given in awards
        )

    async def _explain(
        self,
        view: View,
        planned: Plan,
        held: Held,
        offer: Offer,
        grant: Grant,
        awards: Sequence[Award],
    ) -> dict[str, object]:
        rules = [rule for given in awards for rule in offer.contenders[given.place].compiled.candidate.rules]
        keys_windows = [(rule.key, rule.window_ms) for rule in rules]
        counts = await self._counters.usage(offer.ask.viewer.cap, keys_windows, offer.issued_at_ms)
        used = dict(zip(rules, counts, strict=True))
        return explain(offer.ask, view, planned, held, offer, grant, awards, used)


def _reservation(offer: Offer, whole: bool) -> Reservation:
    return Reservation(
        decision=offer.decision,
        candidates=[contender.compiled.candidate for contender in offer.contenders],
        tickets=offer.tickets,
        expires_at_ms=offer.expires_at_ms,
        whole=whole,
        request=offer.ask.request,
        digest=offer.ask.digest,
        memo=offer,
    )
