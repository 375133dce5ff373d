"""GET /v1/campaigns/{id}/estimate: how much a campaign could get a day."""

from collections.abc import Callable

from aiohttp import web
from msgspec import Struct

from adserve.api.resource import OWNERS
from adserve.api.shapes import Moment, Money
from adserve.domain.time import Clock, from_ms
from adserve.reporting.estimate import Estimate as Estimated
from adserve.reporting.estimate import Figure, Limit, Reason, estimate
from adserve.selection.hindsight import Hindsight, tells
from adserve.selection.state import View
from adserve.store import dossier
from adserve.store.desk import Desk
from adserve.store.sampled import Sample
from adserve.web.operations import Call, NoQuery, Operation
from adserve.web.problems import UNAVAILABLE, Problem
from adserve.web.replies import json_response

ESTIMATES_AT_ONCE_MAX = 1
"""In a process, as they take of the same core as slot requests; whoever comes meanwhile is to come again."""
RETRY_AFTER_S = 2


class EstimateWindow(Struct, frozen=True, rename={"from_": "from"}):
    from_: Moment
    to: Moment


class Estimate(Struct, frozen=True):
    """From `decisions` recorded ones of the `window`, which looked for ads: so many `requests` look for ads a day, `matching` of
    them have a viewer whom the campaign wants, and in `winnable` of these its best ad would be placed, at the bid it has now, whether it runs or
    not. `impressions` are what its budgets leave of them at `price_per_thousand`, and `limited_by` says what they end at. Each figure has the
    ends of its 95 % interval, which tells how far the sample may be off those days, not how other days differ.

    Figures are null where they cannot be told, and `reason` says why: `too_few_decisions` (fewer than 100 were recorded),
    `custom_targeting` (custom values are hardly recorded), `too_few_advertisers` (it hangs on the bids of one or two others, which are not
    told). With `upper_bound`, the campaign has caps, of which the sample cannot tell how often they would stand in the way: it may get less.
    """

    campaign: int
    window: EstimateWindow
    decisions: int
    requests_a_day: Figure | None
    matching_a_day: Figure | None
    winnable_a_day: Figure | None
    impressions_a_day: Figure | None
    limited_by: Limit | None
    price_per_thousand: Money | None
    upper_bound: bool
    reason: Reason | None


class Estimates:
    """`staff` reads the campaign, in the name of its owner; `analysts` the decisions, of which only sums are told."""

    def __init__(self, staff: Desk, analysts: Desk, view: Callable[[], View], clock: Clock) -> None:
        self._staff = staff
        self._sample = Sample(analysts)
        self._view = view
        self._clock = clock
        self._running = 0

    async def get(self, call: Call[None, NoQuery]) -> web.StreamResponse:
        now_ms, view = self._clock(), self._view()
        async with self._staff.transaction(call.caller.advertiser) as connection:
            known = await dossier.dossier(connection, call.id)
            uses = await dossier.uses(connection, known.campaign, now_ms)
        if self._running >= ESTIMATES_AT_ONCE_MAX:
            raise Problem(
                UNAVAILABLE, "Another estimate is being made.", headers={"Retry-After": str(RETRY_AFTER_S)}
            )
        campaign = known.campaign
        ads = known.ads or (dossier.stand_in(campaign),)
        hindsight = Hindsight(ads, view.rates, view.snapshot.qualities)
        self._running += 1
        try:
            hours = await self._sample.hours(hindsight, now_ms)
        finally:
            self._running -= 1
        total_micros, used_micros = (
            campaign.budget_total_micros,
            uses.total_spent_micros + uses.total_held_micros,
        )
        left_micros = None if total_micros is None else total_micros - used_micros
        told = estimate(hours, campaign, left_micros, now_ms, tells=tells(campaign))
        return json_response(_shown(told, campaign.id, campaign.currency, now_ms, capped=bool(campaign.caps)))

    def operations(self) -> list[Operation]:
        return [
            Operation(
                method="GET",
                path="/v1/campaigns/{id}/estimate",
                id="estimateCampaign",
                tag="campaigns",
                summary="How much a campaign could get a day",
                description="From a sample of the decisions of the last seven days, for a campaign that is paused or has not started, too. "
                "Of others' bids only sums are told.",
                handle=self.get,
                scopes=OWNERS,
                answer=Estimate,
                refusals=(503,),
            )
        ]


def _shown(told: Estimated, campaign: int, currency: str, now_ms: int, *, capped: bool) -> Estimate:
    return Estimate(
        campaign,
        EstimateWindow(from_ms(told.from_ms), from_ms(now_ms)),
        told.decisions,
        told.requests,
        told.matching,
        told.winnable,
        told.impressions,
        told.limited_by,
        None if told.price_micros is None else Money(told.price_micros, currency),
        capped,
        told.reason,
    )
