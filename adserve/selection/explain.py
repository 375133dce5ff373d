"""Why this ad, why not that one, why none: a decision in words and figures."""

from collections.abc import Mapping, Sequence
from typing import Any

from adserve.limits.rules import Rule
from adserve.selection.gates import rollout_bucket
from adserve.selection.made import Considered, Made, considered
from adserve.selection.pricing import Contender, clearing_micros
from adserve.selection.ranking import Ranked

EXPLAINED_ADS_MAX = 500
"""So many of the ads that matched are told of one by one, the best; the others are counted."""

_RULE_REASONS = {"h": "hidden_by_viewer", "l": "separation", "t": "minimum_time"}

Lost = Mapping[str, Any]


def explain(made: Made) -> dict[str, Any]:
    """The rollout facts, the funnel, and for each ad considered its score, its price and why it lost."""
    surface = made.view.surfaces[made.ask.surface]
    rollout = made.view.snapshot.rollout_of(made.ask.surface)
    percent_bp = rollout.percent_bp_for(made.ask.context.country)
    bucket = rollout_bucket(made.ask, made.view)
    planned, told = made.planned, considered(made, EXPLAINED_ADS_MAX)
    ads = _ads(made, told.best)
    return {
        "rollout": {"bucket": bucket, "admitted_below": percent_bp, "in_rollout": bucket < percent_bp},
        "positions": list(planned.positions),
        "floor_micros": planned.floor_micros,
        "funnel": _funnel(made, len(surface.ads), told),
        "ads": ads,
        "ads_left_off": told.matched - len(ads),
    }


def _funnel(made: Made, eligible: int, told: Considered) -> dict[str, int]:
    """How many ads got how far."""
    capped = len(made.grant.capped) if made.grant else 0
    return {
        "eligible": eligible,
        "targeted": told.matched,
        "above_floor": told.matched - told.below_floor,
        "ranked": len(made.planned.ranked.ads),
        "in_budget": len(made.held.places),
        "under_cap": len(made.held.places) - capped,
        "placed": len(made.awards),
    }


def _ads(made: Made, best: Ranked) -> list[dict[str, Any]]:
    """From best to worst."""
    contenders = [best.contender(place) for place in range(len(best.ads))]
    floor_micros = made.planned.floor_micros
    placed, lost = _placed(made), _lost(made)
    ads = []
    for place, contender in enumerate(contenders):
        ad = contender.ad.id
        if ad in placed:
            verdict = placed[ad]
        elif contender.value_micros < floor_micros:
            verdict = {"price_micros": None, "lost": {"reason": "below_floor", "floor_micros": floor_micros}}
        else:
            price = clearing_micros(contender, contenders[place + 1 :], floor_micros)
            verdict = {"price_micros": price, "lost": lost.get(ad, {"reason": "not_reached"})}
        ads.append(_scored(contender) | verdict)
    return ads


def _placed(made: Made) -> dict[int, dict[str, Any]]:
    placed = {}
    for given in made.awards:
        rules = _contenders(made)[given.place].compiled.candidate.rules
        placed[given.ticket.ad] = {
            "position": given.position,
            "price_micros": given.ticket.price_micros,
            "caps": [_cap(rule, made.used.get(rule)) for rule in rules if rule.key[0] not in _RULE_REASONS],
            "lost": None,
        }
    return placed


def _lost(made: Made) -> dict[int, Lost]:
    """Why each ad that the decision reached was not placed."""
    ranked, held = made.planned.ranked, made.held
    lost: dict[int, Lost] = {
        ranked.ads[place].ad.id: {"reason": _unheld_reason(made, place)} for place in range(held.reached)
    }
    capped = dict(made.grant.capped) if made.grant else {}
    for place, contender in enumerate(_contenders(made)):
        lost[contender.ad.id] = _reason(capped[place]) if place in capped else {"reason": "outbid"}
    return lost


def _unheld_reason(made: Made, place: int) -> str:
    if not made.counted and not made.planned.ranked.ads[place].unruled:
        return "counters_away"
    return "paced_out" if place in made.held.paced else "no_budget"


def _contenders(made: Made) -> Sequence[Contender]:
    return made.offer.contenders if made.offer else ()


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


def _cap(rule: Rule, used: int | None) -> dict[str, Any]:
    return {
        "key": rule.key,
        "count": rule.most,
        "window_s": rule.window_ms // 1_000,
        "left": None if used is None else max(0, rule.most - used),
    }


def _reason(rule: Rule) -> dict[str, Any]:
    reason = _RULE_REASONS.get(rule.key[0], "frequency_capped")
    return {"reason": reason, "key": rule.key, "count": rule.most, "window_s": rule.window_ms // 1_000}
