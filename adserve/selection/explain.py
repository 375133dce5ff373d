"""Why this ad, why not that one, why none: a decision in words and figures."""

from collections.abc import Mapping, Sequence
from typing import Any

from adserve.domain.rollouts import SurfaceRollout
from adserve.domain.slots import Ask
from adserve.limits.counters import Grant
from adserve.limits.rules import Rule
from adserve.rollout.assignment import bucket_of
from adserve.selection.decide import Award, Offer, Plan
from adserve.selection.pricing import Contender
from adserve.selection.state import View


def explain(
    ask: Ask,
    view: View,
    planned: Plan,
    unfunded: Sequence[Contender] = (),
    offer: Offer | None = None,
    grant: Grant | None = None,
    awards: Sequence[Award] = (),
    used: Mapping[Rule, int] | None = None,
) -> dict[str, Any]:
    """The rollout facts, the funnel, and for each ad considered its score, its price or why it lost.

    `unfunded` are the contenders that found no budget to hold; the walk ends when there are candidates enough, so
    that others are never reached.
    """
    surface = view.surfaces[ask.surface]
    rollout = view.snapshot.rollouts.get(ask.surface, SurfaceRollout())
    percent_bp = rollout.percent_bp_for(ask.context.country)
    bucket = bucket_of(surface.settings.group, ask.viewer.raw)
    capped = dict(grant.capped) if grant else {}
    held = offer.contenders if offer else ()
    return {
        "rollout": {"bucket": bucket, "admitted_below": percent_bp, "in_rollout": bucket < percent_bp},
        "positions": list(planned.positions),
        "funnel": {
            "eligible": len(surface.ads),
            "targeted": planned.matched,
            "above_floor": planned.matched - planned.below_floor,
            "ranked": len(planned.contenders),
            "in_budget": len(held),
            "under_cap": len(held) - len(capped),
            "placed": len(awards),
        },
        "ads": _placed(offer, awards, used or {})
        + _outdone(held, capped, awards)
        + _without_hold(planned, held, unfunded),
    }


def _placed(offer: Offer | None, awards: Sequence[Award], used: Mapping[Rule, int]) -> list[dict[str, Any]]:
    if offer is None:
        return []
    placed = []
    for given in awards:
        contender = offer.contenders[given.place]
        caps = [_cap(rule, used[rule]) for rule in contender.compiled.rules if rule.key[0] not in "hlt"]
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
    held: Sequence[Contender], capped: Mapping[int, Rule], awards: Sequence[Award]
) -> list[dict[str, Any]]:
    placed = {given.place for given in awards}
    return [
        _scored(contender) | {"lost": _reason(capped.get(place))}
        for place, contender in enumerate(held)
        if place not in placed
    ]


def _without_hold(
    planned: Plan, held: Sequence[Contender], unfunded: Sequence[Contender]
) -> list[dict[str, Any]]:
    reached = {contender.ad.id for contender in (*held, *unfunded)}
    never_reached = [contender for contender in planned.contenders if contender.ad.id not in reached]
    return [_scored(contender) | {"lost": {"reason": "no_budget"}} for contender in unfunded] + [
        _scored(contender) | {"lost": {"reason": "not_reached"}} for contender in never_reached
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
