"""Why this ad, why not that one, why none: a decision in words and figures."""

from collections.abc import Mapping, Sequence
from typing import Any

from adserve.domain.rollouts import SurfaceRollout
from adserve.domain.slots import Ask
from adserve.limits.counters import Grant
from adserve.limits.rules import Rule
from adserve.rollout.assignment import bucket_of
from adserve.selection.decide import Award, Held, Offer, Plan
from adserve.selection.pricing import Contender
from adserve.selection.ranking import Ranked
from adserve.selection.state import View

_NOTHING_HELD = Held()


def explain(
    ask: Ask,
    view: View,
    planned: Plan,
    held: Held = _NOTHING_HELD,
    offer: Offer | None = None,
    grant: Grant | None = None,
    awards: Sequence[Award] = (),
    used: Mapping[Rule, int] | None = None,
) -> dict[str, Any]:
    """The rollout facts, the funnel, and for each ad considered its score, its price or why it lost."""
    surface = view.surfaces[ask.surface]
    rollout = view.snapshot.rollouts.get(ask.surface, SurfaceRollout())
    percent_bp = rollout.percent_bp_for(ask.context.country)
    bucket = bucket_of(surface.settings.group, ask.viewer.raw)
    capped = dict(grant.capped) if grant else {}
    return {
        "rollout": {"bucket": bucket, "admitted_below": percent_bp, "in_rollout": bucket < percent_bp},
        "positions": list(planned.positions),
        "funnel": {
            "eligible": len(surface.ads),
            "targeted": planned.matched,
            "above_floor": planned.matched - planned.ranked.below_floor,
            "ranked": len(planned.ranked.ads),
            "in_budget": len(held.places),
            "under_cap": len(held.places) - len(capped),
            "placed": len(awards),
        },
        "ads": _placed(offer, awards, used or {})
        + _outdone(offer, capped, awards)
        + _without_hold(planned.ranked, held),
    }


def _placed(offer: Offer | None, awards: Sequence[Award], used: Mapping[Rule, int]) -> list[dict[str, Any]]:
    if offer is None:
        return []
    placed = []
    for given in awards:
        contender = offer.contenders[given.place]
        caps = [
            _cap(rule, used[rule]) for rule in contender.compiled.candidate.rules if rule.key[0] not in "hlt"
        ]
        placed.append(
            _scored(contender)
            | {
                "position": given.position,
                "price_micros": given.ticket.price_micros,
                "caps": caps,
                "lost": None,
            }
        )
    return placed


def _outdone(
    offer: Offer | None, capped: Mapping[int, Rule], awards: Sequence[Award]
) -> list[dict[str, Any]]:
    placed = {given.place for given in awards}
    return [
        _scored(contender) | {"lost": _reason(capped.get(place))}
        for place, contender in enumerate(offer.contenders if offer else ())
        if place not in placed
    ]


def _without_hold(ranked: Ranked, held: Held) -> list[dict[str, Any]]:
    return [
        _scored(ranked.contender(place))
        | {"lost": {"reason": "no_budget" if place < held.reached else "not_reached"}}
        for place in range(len(ranked.ads))
        if place not in held.places
    ]


def _scored(contender: Contender) -> dict[str, Any]:
    ad = contender.ad
    return {
        "ad": ad.id,
        "campaign": ad.campaign.id,
        "advertiser": ad.advertiser,
        "value_micros": round(contender.value_micros),
        "click_rate": round(contender.click_rate, 6),
        "bid": {
            "model": ad.campaign.bid_model,
            "micros": ad.campaign.bid_micros,
            "currency": ad.campaign.currency,
        },
    }


def _cap(rule: Rule, used: int) -> dict[str, Any]:
    return {
        "key": rule.key,
        "count": rule.most,
        "window_s": rule.window_ms // 1_000,
        "left": max(0, rule.most - used),
    }


def _reason(rule: Rule | None) -> dict[str, Any]:
    if rule is None:
        return {"reason": "outbid"}
    reasons = {"h": "hidden_by_viewer", "l": "separation", "t": "minimum_time"}
    reason = reasons.get(rule.key[0], "frequency_capped")
    return {"reason": reason, "key": rule.key, "count": rule.most, "window_s": rule.window_ms // 1_000}
