"""The way of a slot request: recall, plan, hold, reserve, award."""

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple, Protocol
from uuid import UUID

from adserve.domain.ids import DecisionId, derived_uuid7s
from adserve.domain.slots import Ask, NoFill
from adserve.domain.tickets import Ticket
from adserve.domain.time import SECOND_MS, Clock
from adserve.limits.counters import CountersAway, MemoryCounters
from adserve.limits.leases import Hold, LeaseBook
from adserve.limits.reservations import Grant, Past, PastDiffers, Reservation
from adserve.limits.rules import Rule
from adserve.selection.decide import (
    Award,
    Held,
    Offer,
    Plan,
    award,
    expected_click_micros,
    hold_micros,
    offer_of,
    plan,
)
from adserve.selection.decision import Decision, Placement, RequestReused
from adserve.selection.explain import explain
from adserve.selection.made import Made
from adserve.selection.ranking import Ranked
from adserve.selection.state import View

log = logging.getLogger(__name__)

RANKED_PER_CANDIDATE = 4
"""How many more ads are ranked than become candidates: some will have no budget left to hold."""

MORE_THAN_POSITIONS = 3
"""So many more candidates than positions fill and price these unless caps stand in the way: only then are more offered."""

_NOTHING_SEEN = Past({}, None)
_NOTHING_HELD = Held()
_NOTHING_USED: Mapping[Rule, int] = {}


class Counters(Protocol):
    """May raise CountersAway, and TimeoutError when an answer took longer than `wait_ms`."""

    epoch: int

    def assumed(self, viewer: bytes, now_ms: int) -> Past | None:
        """What may be taken for the viewer's past without asking, if anything: `reserve` raises PastDiffers where it is another."""
        ...

    async def recall(self, viewer: bytes, request: str | None, now_ms: int, wait_ms: int) -> Past: ...

    async def reserve(self, viewer: bytes, ask: Reservation, now_ms: int, wait_ms: int) -> Grant: ...

    async def release(self, ticket: Ticket, now_ms: int) -> bool: ...

    async def usage(
        self, viewer: bytes, keys_windows: Sequence[tuple[str, int]], now_ms: int
    ) -> list[int]: ...


class Hides(Protocol):
    def of(self, viewer: bytes) -> Collection[int]:
        """The advertisers that the viewer asked not to see again."""
        ...


class Sealer(Protocol):
    def seal(self, ticket: Ticket) -> str: ...


class Bounds(NamedTuple):
    """At most `candidates_max` ads hold budget for a decision; a click's hold is its expected price times the factor."""

    candidates_max: int = 32
    click_hold_factor: float = 2.0


class _TooFew(Exception):
    """Caps stand in the way of the first few candidates, and there are more."""


class _Moment(NamedTuple):
    """What one decision takes as given. `counts` is where it reserves, `past` what it knows of the viewer; `counted` says
    whether both are the shared ones: without them only what has no rule is offered."""

    ask: Ask
    view: View
    now_ms: int
    seed: int
    ids: Sequence[UUID]
    past: Past
    counts: Counters
    counted: bool


class Parts(NamedTuple):
    """What slot requests are answered with. `view` gives the newest snapshot; `may_serve` says whether our counters are
    the ones that count: without that, nothing is placed. `notes` are told of every decision that was made: what they do
    with it must not take long."""

    view: Callable[[], View]
    counters: Counters
    hides: Hides
    leases: LeaseBook
    sealer: Sealer
    may_serve: Callable[[], bool]
    notes: Sequence[Callable[[Made], None]] = ()


class Slots:
    """Answers slot requests. `draw` gives 128 bits of chance a decision."""

    def __init__(self, parts: Parts, clock: Clock, draw: Callable[[], int], bounds: Bounds) -> None:
        self._view = parts.view
        self._counters = parts.counters
        self._hides = parts.hides
        self._leases = parts.leases
        self._sealer = parts.sealer
        self._may_serve = parts.may_serve
        self._notes = parts.notes
        self._clock = clock
        self._draw = draw
        self._bounds = bounds

    async def answer(self, ask: Ask) -> Decision:
        """Decides within the deadline. Any fault of ours is a decision without ads.

        Raises RequestReused when the caller's `request` came before with another body, and nothing else.
        """
        now_ms, seed = self._clock(), self._draw()
        ids = derived_uuid7s(now_ms, seed, 1 + ask.max_ads)
        if not self._may_serve():
            return Decision(DecisionId(ids[0]), (), NoFill.DEGRADED)
        if ask.deadline_ms <= 0:
            return Decision(DecisionId(ids[0]), (), NoFill.DEADLINE)
        try:
            return await self._decide(ask, now_ms, seed, ids)
        except RequestReused:
            raise
        except TimeoutError:
            return Decision(DecisionId(ids[0]), (), NoFill.DEADLINE)
        except Exception:
            log.exception("decision failed", extra={"decision": str(ids[0])})
            return Decision(DecisionId(ids[0]), (), NoFill.DEGRADED)

    async def release(self, tickets: Sequence[Ticket]) -> int:
        """Gives back the caps and budgets of placements that will not be shown; answers how many were held.

        Where the counters are away nothing is given back: it lapses by itself.
        """
        released = 0
        for ticket in tickets:
            if not ticket.viewer_cap:  # of an erased viewer nothing is held
                continue
            try:
                held = await self._counters.release(ticket, self._clock())
            except (CountersAway, TimeoutError):
                break
            if held:
                self._leases.release(ticket.ticket)
                released += 1
        return released

    async def _decide(self, ask: Ask, now_ms: int, seed: int, ids: Sequence[UUID]) -> Decision:
        self._leases.traffic.note(ask.context.country)
        view = self._view()
        try:
            past = self._counters.assumed(ask.viewer.cap, now_ms)
            if past is None:
                past = await self._counters.recall(ask.viewer.cap, ask.request, now_ms, ask.deadline_ms)
            while True:  # three times at the most: with what was assumed, with what is true, with an answer that came meanwhile
                # The switch, and a snapshot that is too old, beat every promise to a retry.
                if past.earlier is not None and view.shows_ads(now_ms):
                    return self._repeat(past.earlier.digest, past.earlier.memo, past.earlier.grant, ask)
                try:
                    return await self._fill(_Moment(ask, view, now_ms, seed, ids, past, self._counters, True))
                except PastDiffers as differs:
                    past = differs.past
        except CountersAway:
            # A call that got no answer may have reserved its tickets for other ads: those placed now have ids of their own.
            seed = self._draw()
            ids = derived_uuid7s(now_ms, seed, 1 + ask.max_ads)
            counts = self._hides_alone(ask.viewer.cap, now_ms)
            return await self._fill(_Moment(ask, view, now_ms, seed, ids, _NOTHING_SEEN, counts, False))

    def _hides_alone(self, viewer: bytes, now_ms: int) -> MemoryCounters:
        """What a viewer does not want to see is known here too."""
        counts = MemoryCounters(self._counters.epoch)
        for advertiser in self._hides.of(viewer):
            counts.restore_hide(viewer, advertiser, now_ms)
        return counts

    async def _fill(self, moment: _Moment) -> Decision:
        """Offers the best few that are at hand, where caps or budgets stand in their way more of these, and only then
        looks at all that match."""
        ask, most = moment.ask, self._bounds.candidates_max
        if not ask.explain:
            planned = self._plan(moment, quick=True)
            few = MORE_THAN_POSITIONS + len(planned.positions)
            for some in (few, most) if few < most else (most,):
                try:
                    return await self._place(moment, planned, some, last=False)
                except _TooFew:
                    pass
        return await self._place(moment, self._plan(moment, quick=False), most, last=True)

    def _plan(self, moment: _Moment, *, quick: bool) -> Plan:
        most = self._bounds.candidates_max * RANKED_PER_CANDIDATE
        return plan(moment.ask, moment.view, moment.past, most, moment.now_ms, moment.seed, quick=quick)

    async def _place(self, moment: _Moment, planned: Plan, most: int, *, last: bool) -> Decision:
        """Offers the first `most` ads that hold their price. Raises _TooFew when others may stand behind them, unless
        this is the `last` try."""
        ask = moment.ask
        if planned.no_fill is not None:
            await self._make_sure(moment)
            return self._decided(moment, planned, planned.no_fill)
        ranked = planned.ranked
        held = self._hold(ranked, most, moment)
        last = last or (
            ranked.whole and (held.reached == len(ranked.ads) or most == self._bounds.candidates_max)
        )
        if not held.places:
            if not last:
                raise _TooFew
            await self._make_sure(moment)
            spent = NoFill.PACED_OUT if held.paced else NoFill.BUDGET_SPENT
            reason = spent if moment.counted else NoFill.DEGRADED
            return self._decided(moment, planned, reason, held)
        offer = offer_of(
            ask, moment.view, planned, held, moment.ids, epoch=moment.counts.epoch, now_ms=moment.now_ms
        )
        kept: set[int] = set()
        try:
            reservation = _reservation(moment, offer, whole=not last)
            grant = await moment.counts.reserve(
                ask.viewer.cap, reservation, moment.now_ms, self._left_ms(moment)
            )
            if not (last or grant.reserved):
                raise _TooFew
            awards = award(offer, grant)
            used = await self._used(moment, offer, awards) if ask.explain else {}
            no_fill = None if awards else NoFill.FREQUENCY_CAPPED
            decision = self._decided(moment, planned, no_fill, held, offer, grant, awards, used)
            for given in awards:  # last, as nothing fails after it: what stays held is answered
                self._keep(offer, given)
                kept.add(given.place)
        finally:
            for place, hold in enumerate(held.holds):
                if place not in kept:
                    self._leases.give_back(hold)
        return decision

    async def _make_sure(self, moment: _Moment) -> None:
        """Of a past that was assumed, before a decision that reserves nothing. Raises PastDiffers with the one that is known then."""
        ask = moment.ask
        if moment.past.assumed is not None:
            raise PastDiffers(
                await moment.counts.recall(ask.viewer.cap, ask.request, moment.now_ms, self._left_ms(moment))
            )

    def _left_ms(self, moment: _Moment) -> int:
        return moment.ask.deadline_ms - (self._clock() - moment.now_ms)

    def _decided(
        self,
        moment: _Moment,
        planned: Plan,
        no_fill: NoFill | None,
        held: Held = _NOTHING_HELD,
        offer: Offer | None = None,
        grant: Grant | None = None,
        awards: Sequence[Award] = (),
        used: Mapping[Rule, int] = _NOTHING_USED,
    ) -> Decision:
        """The answer, once everything that wants to know of the decision has been told."""
        ask, view, now_ms, seed, ids, past, _, counted = moment
        most = self._bounds.candidates_max * RANKED_PER_CANDIDATE
        made = Made(
            ids[0],
            ask,
            view,
            past,
            most,
            now_ms,
            seed,
            counted,
            planned,
            no_fill,
            held,
            offer,
            grant,
            awards,
            used,
        )
        for note in self._notes:
            note(made)
        placements = self._seal(offer, awards) if offer else ()
        return Decision(DecisionId(ids[0]), placements, no_fill, explain(made) if ask.explain else None)

    def _hold(self, ranked: Ranked, most: int, moment: _Moment) -> Held:
        """Holds the prices of the first `most` ads whose campaigns have room for them."""
        places: list[int] = []
        holds: list[Hold] = []
        paced: list[int] = []
        hold, factor, now_ms = self._leases.hold, self._bounds.click_hold_factor, moment.now_ms
        reached = len(ranked.ads)
        for place, compiled in enumerate(ranked.ads):
            if not (moment.counted or compiled.unruled):
                continue
            amount = hold_micros(compiled, ranked.click_rates[place], factor)
            given = hold(compiled.campaign, amount, now_ms)
            if given is not None:
                places.append(place)
                holds.append(given)
                if len(places) == most:
                    reached = place + 1
                    break
            elif self._leases.paced_out(compiled.campaign):
                paced.append(place)
        return Held(places, holds, reached, paced)

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
        seal, contenders = self._sealer.seal, offer.contenders
        return tuple(
            [
                Placement(
                    given.position, contenders[given.place].compiled.ad, given.ticket, seal(given.ticket)
                )
                for given in awards
            ]
        )

    async def _used(self, moment: _Moment, offer: Offer, awards: Sequence[Award]) -> dict[Rule, int]:
        """How far the rules of what is placed are used up."""
        rules = [rule for given in awards for rule in offer.contenders[given.place].compiled.candidate.rules]
        keys_windows = [(rule.key, rule.window_ms) for rule in rules]
        try:
            async with asyncio.timeout(self._left_ms(moment) / SECOND_MS):
                counts = await moment.counts.usage(offer.viewer_cap, keys_windows, offer.issued_at_ms)
        except (CountersAway, TimeoutError):  # what was reserved is answered all the same
            return {}
        return dict(zip(rules, counts, strict=True))


def _reservation(moment: _Moment, offer: Offer, *, whole: bool) -> Reservation:
    ask = moment.ask
    return Reservation(
        decision=offer.decision,
        candidates=[contender.compiled.candidate for contender in offer.contenders],
        tickets=offer.tickets,
        expires_at_ms=offer.expires_at_ms,
        whole=whole,
        request=ask.request,
        digest=ask.digest,
        memo=offer,
        assumed=moment.past.assumed,
    )
