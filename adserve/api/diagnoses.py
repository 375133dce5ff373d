"""GET /v1/campaigns/{id}/diagnosis: why a campaign is shown to nobody, or to few."""

from collections.abc import Callable, Mapping

from aiohttp import web
from msgspec import Struct

from adserve.api.resource import OWNERS
from adserve.api.shapes import Moment
from adserve.domain.surfaces import Surface
from adserve.domain.time import HOUR_MS, Clock, from_ms
from adserve.reporting.diagnosis import Facts, Finding, Passed, diagnose
from adserve.selection.hindsight import worth_micros
from adserve.selection.state import View
from adserve.store import dossier
from adserve.store.desk import Desk
from adserve.web.operations import Call, NoQuery, Operation
from adserve.web.replies import json_response


class PassedShown(Passed, frozen=True, rename={"from_": "from"}, kw_only=True):
    """The funnel between two full hours: `eligible` requests looked for ads while the campaign was live, `targeted` had a viewer
    whom it wants. Of its ads that were then reached (`ranked`), so many held their price (`in_budget`), broke no rule of the viewer
    (`under_cap`), were placed, and were seen (`impressions`)."""

    from_: Moment
    to: Moment


class Diagnosis(Struct, frozen=True):
    """`can_be_shown` says whether none of the `findings` blocks; they come in the fixed order of their codes. `funnel` is null
    where nothing was counted."""

    campaign: int
    at: Moment
    can_be_shown: bool
    findings: list[Finding]
    funnel: PassedShown | None


class Diagnoses:
    """`keeps_back` says of a campaign whether its pace was why it had no budget when a request last asked for it."""

    def __init__(
        self,
        desk: Desk,
        view: Callable[[], View],
        surfaces: Mapping[str, Surface],
        keeps_back: Callable[[int], bool],
        clock: Clock,
    ) -> None:
        self._desk = desk
        self._view = view
        self._surfaces = surfaces
        self._keeps_back = keeps_back
        self._clock = clock

    async def get(self, call: Call[None, NoQuery]) -> web.StreamResponse:
        now_ms, view = self._clock(), self._view()
        async with self._desk.transaction(call.caller.advertiser) as connection:
            known = await dossier.dossier(connection, call.id)
            campaign = known.campaign
            counted = await dossier.counted(connection, campaign, now_ms)
            uses = await dossier.uses(connection, campaign, now_ms)
            funds_micros = await dossier.funds_micros(connection, campaign)
        ads = known.ads or (dossier.stand_in(campaign),)
        facts = Facts(
            now_ms=now_ms,
            advertiser_status=known.advertiser_status,
            campaign_status=known.status,
            created_at_ms=known.created_at_ms,
            campaign=campaign,
            ads=known.statuses,
            surfaces=self._surfaces,
            rollouts=view.snapshot.rollouts,
            paused=view.paused,
            funds_micros=funds_micros,
            uses=uses,
            keeps_back=self._keeps_back(campaign.id),
            worth_micros=worth_micros(ads, view.rates, view.snapshot.qualities),
            passed=counted.passed,
            counted_from_ms=counted.since_ms,
            counted_whole=counted.whole,
        )
        findings = diagnose(facts)
        return json_response(
            Diagnosis(
                campaign.id,
                from_ms(now_ms),
                all(finding.effect != "blocks" for finding in findings),
                findings,
                None if counted.passed is None else _shown(counted.passed, counted.since_ms),
            )
        )

    def operations(self) -> list[Operation]:
        return [
            Operation(
                method="GET",
                path="/v1/campaigns/{id}/diagnosis",
                id="diagnoseCampaign",
                tag="campaigns",
                summary="Why a campaign is shown to nobody, or to few",
                description="What blocks it and what limits it, from its own settings, money and funnel. Of the rollout it is told "
                "only whether ads are shown in the campaign's countries.",
                handle=self.get,
                scopes=OWNERS,
                answer=Diagnosis,
            )
        ]


def _shown(passed: Passed, since_ms: int) -> PassedShown:
    counts = {name: getattr(passed, name) for name in Passed.__struct_fields__}
    until = from_ms(since_ms + dossier.HOURS * HOUR_MS)
    return PassedShown(from_=from_ms(since_ms), to=until, **counts)
