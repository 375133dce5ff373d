"""Why a campaign is shown to nobody, or to few: what stands in the way of it, from facts that others gathered.

A campaign's owner reads this. It tells nothing of other advertisers' bids and budgets, and of the rollout only whether ads
are shown in the campaign's countries, no percents and no plans.
"""

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from itertools import pairwise
from typing import Any, Literal

from msgspec import Struct

from adserve.domain.ads import Campaign
from adserve.domain.rollouts import SurfaceRollout
from adserve.domain.surfaces import Surface
from adserve.domain.time import rfc3339
from adserve.limits.lines import least_micros

NAMED_MAX = 20
"""So many ids or countries are named one by one."""
COUNTED_MIN = 100
"""Of fewer requests the funnel tells nothing."""
FEW = 0.1
"""Less than this share of the requests that looked for ads is hardly any delivery."""
WHOLE_BP = 10_000

_NOBODY = SurfaceRollout()
_UNAPPROVED = {"waiting": "waiting for a review", "rejected": "rejected by a reviewer"}


class Code(StrEnum):
    """In the order in which they are told."""

    ADVERTISER_NOT_ACTIVE = "advertiser_not_active"
    CAMPAIGN_NOT_ACTIVE = "campaign_not_active"
    NOT_STARTED = "not_started"
    ENDED = "ended"
    NO_ADS = "no_ads"
    ADS_NOT_ACTIVE = "ads_not_active"
    CREATIVES_NOT_ACTIVE = "creatives_not_active"
    CREATIVES_NOT_APPROVED = "creatives_not_approved"
    CURRENCY_NOT_TAKEN = "currency_not_taken"
    NO_FUNDS = "no_funds"
    TOTAL_BUDGET_SPENT = "total_budget_spent"
    DAILY_BUDGET_SPENT = "daily_budget_spent"
    PACED_OUT = "paced_out"
    BELOW_FLOOR = "below_floor"
    ADS_PAUSED = "ads_paused"
    NOT_ROLLED_OUT = "not_rolled_out"
    NO_REQUESTS = "no_requests"
    NOBODY_MATCHED = "nobody_matched"
    LOST_TO_TARGETING = "lost_to_targeting"
    LOST_TO_BETTER_ADS = "lost_to_better_ads"
    LOST_TO_BUDGET = "lost_to_budget"
    LOST_TO_CAPS = "lost_to_caps"
    LOST_TO_PLACES = "lost_to_places"
    NOT_SHOWN = "not_shown"


class Finding(Struct, frozen=True):
    """`blocks`: while it is so, the campaign is shown to nobody. `limits`: to fewer than could be. `detail` has the figures."""

    code: Code
    effect: Literal["blocks", "limits"]
    detail: str


class AdFacts(Struct, frozen=True):
    id: int
    status: str
    creative: int
    creative_status: str
    review: str

    @property
    def showable(self) -> bool:
        return self.status == self.creative_status == "active" and self.review == "approved"


class Uses(Struct, frozen=True):
    """Of the campaign's budgets; what is held is promised to processes or to ads that are out, and may come back."""

    day_spent_micros: int = 0
    day_held_micros: int = 0
    total_spent_micros: int = 0
    total_held_micros: int = 0


class Passed(Struct, frozen=True):
    """The funnel of the last full hours: requests that looked for ads while the campaign was live, those whose viewer it wants, and how
    many of its ads came how far."""

    eligible: int
    targeted: int
    ranked: int
    in_budget: int
    under_cap: int
    placed: int
    impressions: int


class Facts(Struct, frozen=True, kw_only=True):
    """`funds_micros` are what the advertiser may still set aside, in the campaign's currency. `worth_micros` is what 1,000
    impressions of its best ad are worth in an auction; of clicks that is a prediction. `keeps_back` says that the pace was why it had no
    budget when it was last asked for. `passed` is None where nothing was counted; `counted_from_ms` is when its hours began, and `counted_whole` says that none of it was missed."""

    now_ms: int
    advertiser_status: str
    campaign_status: str
    created_at_ms: int
    campaign: Campaign
    ads: Sequence[AdFacts]
    surfaces: Mapping[str, Surface]
    rollouts: Mapping[str, SurfaceRollout]
    paused: bool
    funds_micros: int
    uses: Uses
    keeps_back: bool
    worth_micros: float
    passed: Passed | None
    counted_from_ms: int
    counted_whole: bool


def diagnose(facts: Facts) -> list[Finding]:
    """In the order of their codes."""
    return [found for check in CHECKS if (found := check(facts)) is not None]


def _advertiser_not_active(facts: Facts) -> Finding | None:
    if facts.advertiser_status == "active":
        return None
    return _blocks(Code.ADVERTISER_NOT_ACTIVE, f"The advertiser is {facts.advertiser_status}.")


def _campaign_not_active(facts: Facts) -> Finding | None:
    if facts.campaign_status == "active":
        return None
    return _blocks(Code.CAMPAIGN_NOT_ACTIVE, f"The campaign is {facts.campaign_status}.")


def _not_started(facts: Facts) -> Finding | None:
    starts_at_ms = facts.campaign.starts_at_ms
    if facts.now_ms >= starts_at_ms:
        return None
    return _blocks(Code.NOT_STARTED, f"It starts at {rfc3339(starts_at_ms)}.")


def _ended(facts: Facts) -> Finding | None:
    ends_at_ms = facts.campaign.ends_at_ms
    if ends_at_ms is None or facts.now_ms < ends_at_ms:
        return None
    return _blocks(Code.ENDED, f"It ended at {rfc3339(ends_at_ms)}.")


def _no_ads(facts: Facts) -> Finding | None:
    return None if facts.ads else _blocks(Code.NO_ADS, "It has no ad.")


def _ads_not_active(facts: Facts) -> Finding | None:
    resting = {ad.id: ad.status for ad in facts.ads}
    return _resting(facts, Code.ADS_NOT_ACTIVE, "ad", resting)


def _creatives_not_active(facts: Facts) -> Finding | None:
    resting = {ad.creative: ad.creative_status for ad in facts.ads if ad.status != "archived"}
    return _resting(facts, Code.CREATIVES_NOT_ACTIVE, "creative", resting)


def _creatives_not_approved(facts: Facts) -> Finding | None:
    reviews = {
        ad.creative: _UNAPPROVED[ad.review]
        for ad in facts.ads
        if ad.review in _UNAPPROVED and "archived" not in (ad.status, ad.creative_status)
    }
    return _resting(facts, Code.CREATIVES_NOT_APPROVED, "creative", reviews)


def _resting(facts: Facts, code: Code, noun: str, statuses: Mapping[int, str]) -> Finding | None:
    """What was archived is missed only where nothing is left."""
    some_left = any(ad.showable for ad in facts.ads)
    told = ("paused", *_UNAPPROVED.values(), *(() if some_left else ("archived",)))
    parts = []
    for status in told:
        ids = [str(id_) for id_, of in statuses.items() if of == status]
        if ids:
            parts.append(
                f"{noun}{'s' if len(ids) > 1 else ''} {_listed(ids)} {'are' if len(ids) > 1 else 'is'} {status}"
            )
    if not parts:
        return None
    detail = " and ".join(parts)
    detail = detail[0].upper() + detail[1:]
    return _limits(code, f"{detail}.") if some_left else _blocks(code, f"{detail}, and no ad is left.")


def _currency_not_taken(facts: Facts) -> Finding | None:
    if _surfaces(facts):
        return None
    taken = sorted({surface.currency for surface in facts.surfaces.values()})
    detail = f"It bids in {facts.campaign.currency}, and ads are sold in {_listed(taken)}."
    return _blocks(Code.CURRENCY_NOT_TAKEN, detail)


def _no_funds(facts: Facts) -> Finding | None:
    if facts.funds_micros >= least_micros(facts.campaign):
        return None
    event_micros, held_micros = facts.campaign.event_bid_micros, facts.uses.total_held_micros
    detail = (
        f"The advertiser has {_money(facts, facts.funds_micros)} left to spend, with credit, and one {facts.campaign.billable} "
        f"may cost {_money(facts, event_micros)}; {_money(facts, held_micros)} are held for the campaign."
    )
    return _unless_held(facts, Code.NO_FUNDS, detail, held_micros)


def _total_budget_spent(facts: Facts) -> Finding | None:
    uses, budget_micros = facts.uses, facts.campaign.budget_total_micros
    spent, held = uses.total_spent_micros, uses.total_held_micros
    return _used_up(facts, Code.TOTAL_BUDGET_SPENT, "the total budget", budget_micros, spent, held)


def _daily_budget_spent(facts: Facts) -> Finding | None:
    uses, budget_micros = facts.uses, facts.campaign.budget_daily_micros
    spent, held = uses.day_spent_micros, uses.day_held_micros
    return _used_up(facts, Code.DAILY_BUDGET_SPENT, "today's budget", budget_micros, spent, held)


def _used_up(
    facts: Facts, code: Code, name: str, budget_micros: int | None, spent_micros: int, held_micros: int
) -> Finding | None:
    """Nothing of it can be set aside any more; what is held already may still be shown for."""
    if budget_micros is None or budget_micros - spent_micros - held_micros >= least_micros(facts.campaign):
        return None
    detail = (
        f"Of {name} of {_money(facts, budget_micros)}, {_money(facts, spent_micros)} are spent and "
        f"{_money(facts, held_micros)} held for ads that are out or about to be."
    )
    return _unless_held(facts, code, detail, held_micros)


def _unless_held(facts: Facts, code: Code, detail: str, held_micros: int) -> Finding:
    """A decision that pays for clicks holds a fraction of one; any other the whole bid."""
    least = 1 if facts.campaign.billable == "click" else facts.campaign.event_bid_micros
    return _limits(code, detail) if held_micros >= least else _blocks(code, detail)


def _paced_out(facts: Facts) -> Finding | None:
    if not facts.keeps_back:
        return None
    budget_micros = facts.campaign.budget_daily_micros
    of = "" if budget_micros is None else f" of {_money(facts, budget_micros)}"
    spent = _money(facts, facts.uses.day_spent_micros)
    return _limits(
        Code.PACED_OUT, f"Even pacing keeps the rest of the day's budget{of} for later; {spent} are spent."
    )


def _below_floor(facts: Facts) -> Finding | None:
    floors = {
        (name, country): surface.floor_micros_for(country)
        for name, surface in _surfaces(facts).items()
        for country in _countries(facts, surface.floors_micros)
    }
    above = {place: floor for place, floor in floors.items() if facts.worth_micros < floor}
    if not above:
        return None
    places = [
        f"{_money(facts, floor)} on {name}{f' in {country}' if country else ''}"
        for (name, country), floor in above.items()
    ]
    clicks = facts.campaign.billable == "click"
    detail = (
        f"1,000 impressions of it {'are expected to be' if clicks else 'are'} worth {_money(facts, round(facts.worth_micros))}, "
        f"less than the floor of {_listed(places)}."
    )
    return (
        _blocks(Code.BELOW_FLOOR, detail)
        if above == floors and not clicks
        else _limits(Code.BELOW_FLOOR, detail)
    )


def _ads_paused(facts: Facts) -> Finding | None:
    return _blocks(Code.ADS_PAUSED, "No ads are shown to anybody at the moment.") if facts.paused else None


def _not_rolled_out(facts: Facts) -> Finding | None:
    percents = []
    for name in _surfaces(facts):
        rollout = facts.rollouts.get(name, _NOBODY)
        percents += [rollout.percent_bp_for(country) for country in _countries(facts, rollout.countries)]
    if not percents or min(percents) == WHOLE_BP:
        return None
    if max(percents) == 0:
        return _blocks(Code.NOT_ROLLED_OUT, "Ads are not shown in the campaign's countries yet.")
    return _limits(Code.NOT_ROLLED_OUT, "Ads are not shown to all viewers of the campaign's countries yet.")


def _no_requests(facts: Facts) -> Finding | None:
    lived = max(facts.created_at_ms, facts.campaign.starts_at_ms) < facts.counted_from_ms
    if not (lived and facts.counted_whole) or (facts.passed is not None and facts.passed.eligible > 0):
        return None
    detail = f"Since {rfc3339(facts.counted_from_ms)} no request looked for ads while it could be shown."
    return _limits(Code.NO_REQUESTS, detail)


def _nobody_matched(facts: Facts) -> Finding | None:
    passed = facts.passed
    if passed is None or passed.eligible < COUNTED_MIN or passed.targeted:
        return None
    return _limits(
        Code.NOBODY_MATCHED,
        f"None of {passed.eligible:,} requests that looked for ads had a viewer whom it wants.",
    )


_LOSSES: tuple[tuple[Code, str, str], ...] = (
    (Code.LOST_TO_TARGETING, "targeted", "{before:,} requests looked for ads, and {after:,} had a viewer whom it wants"),
    (Code.LOST_TO_BETTER_ADS, "ranked", "for {before:,} of these it was wanted, and {after:,} times its ads came near a place: others were worth more"),
    (Code.LOST_TO_BUDGET, "in_budget", "its ads came near a place {before:,} times, and {after:,} times there was budget"),
    (Code.LOST_TO_CAPS, "under_cap", "{before:,} times there was budget, and {after:,} times its caps and the viewer's rules allowed it"),
    (Code.LOST_TO_PLACES, "placed", "{before:,} times it could be shown, and {after:,} times it was worth more than the others that could"),
    (Code.NOT_SHOWN, "impressions", "it was placed {before:,} times, and {after:,} impressions were reported"),
)  # fmt: skip  # laid out as rows
"""Each step of the funnel with what is lost before it."""


def _lost(facts: Facts) -> Finding | None:
    """Where most is lost, if little comes through."""
    passed = facts.passed
    if passed is None or passed.eligible < COUNTED_MIN or not passed.targeted:
        return None
    if passed.impressions >= FEW * passed.eligible:
        return None
    counts = [passed.eligible, *(int(getattr(passed, step)) for _, step, _ in _LOSSES)]
    steps = list(zip(_LOSSES, pairwise(counts), strict=True))
    (code, _, text), (before, after) = max(steps, key=lambda step: step[1][0] - step[1][1])
    told = text.format(before=before, after=after)
    return _limits(code, f"{told[0].upper()}{told[1:]}.")


CHECKS: tuple[Callable[[Facts], Finding | None], ...] = (
    _advertiser_not_active,
    _campaign_not_active,
    _not_started,
    _ended,
    _no_ads,
    _ads_not_active,
    _creatives_not_active,
    _creatives_not_approved,
    _currency_not_taken,
    _no_funds,
    _total_budget_spent,
    _daily_budget_spent,
    _paced_out,
    _below_floor,
    _ads_paused,
    _not_rolled_out,
    _no_requests,
    _nobody_matched,
    _lost,
)


def _surfaces(facts: Facts) -> dict[str, Surface]:
    """Those that sell in the campaign's currency."""
    currency = facts.campaign.currency
    return {name: surface for name, surface in facts.surfaces.items() if surface.currency == currency}


def _countries(facts: Facts, told_apart: Mapping[str, Any]) -> list[str | None]:
    """Those that the campaign wants, as far as a surface tells them apart; None stands for all others."""
    wanted, excluded = facts.campaign.targeting.countries, facts.campaign.targeting.exclude.countries
    if wanted:
        return [country for country in dict.fromkeys(wanted) if country not in excluded]
    return [None, *(country for country in sorted(told_apart) if country not in excluded)]


def _blocks(code: Code, detail: str) -> Finding:
    return Finding(code, "blocks", detail)


def _limits(code: Code, detail: str) -> Finding:
    return Finding(code, "limits", detail)


def _listed(names: Sequence[str]) -> str:
    if len(names) > NAMED_MAX:
        return f"{', '.join(names[:NAMED_MAX])} and {len(names) - NAMED_MAX} more"
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _money(facts: Facts, micros: int) -> str:
    sign = "-" if micros < 0 else ""
    units, rest = divmod(abs(micros), 1_000_000)
    return f"{sign}{units:,}.{f'{rest:06}'.rstrip('0').ljust(2, '0')} {facts.campaign.currency}"
