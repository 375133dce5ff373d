"""Caps, separation, minimum time and hides are all the same: at most so many entries of a key in a window.

An impression counts on its ad, campaign and advertiser, on all ads, and on its campaign's separation labels.
"""

from typing import NamedTuple

from adserve.domain.ads import CAP_WINDOW_MAX_S, Ad, Cap
from adserve.domain.time import DAY_MS, SECOND_MS

ALL = "*"
PACE = "t"
"""Counts like ALL, but not within a decision: the minimum time between ads of different requests."""

RETENTION_MS = 200 * DAY_MS
"""How long a hide holds and an entry is kept; longer than the longest cap."""
GRACE_MS = 60 * SECOND_MS
"""How much longer than its ticket a reservation counts and a price is kept: an event received in time may be confirmed later."""

assert RETENTION_MS > CAP_WINDOW_MAX_S * SECOND_MS  # noqa: S101 - a contradiction between two constants


class Rule(NamedTuple):
    """At most `most` entries of `key` in any `window_ms`."""

    key: str
    most: int
    window_ms: int


def ad_key(ad: int) -> str:
    return f"a{ad}"


def campaign_key(campaign: int) -> str:
    return f"c{campaign}"


def advertiser_key(advertiser: int) -> str:
    return f"v{advertiser}"


def hide_key(advertiser: int) -> str:
    return f"h{advertiser}"


def label_key(label: str) -> str:
    return f"l:{label}"


def keys_counted(ad: int, campaign: int, advertiser: int, labels: tuple[str, ...]) -> tuple[str, ...]:
    """The keys that an impression adds an entry to. `ALL` and `PACE` hold for every entry and are not listed."""
    return (ad_key(ad), campaign_key(campaign), advertiser_key(advertiser), *map(label_key, labels))


def cap_rules(ad: Ad) -> tuple[Rule, ...]:
    """The rules that hold for every impression, also one that comes after its reservation is gone."""
    return tuple(_cap_rule(ad, cap) for cap in ad.campaign.caps)


def placement_rules(ad: Ad, *, separation_ms: int, min_time_ms: int) -> tuple[Rule, ...]:
    """All rules that a new placement of this ad must satisfy for a viewer, on a surface with these times."""
    rules = list(cap_rules(ad))
    if separation_ms:
        rules += [Rule(label_key(label), 1, separation_ms) for label in ad.campaign.separation]
    if min_time_ms:
        rules.append(Rule(PACE, 1, min_time_ms))
    rules.append(Rule(hide_key(ad.advertiser), 1, RETENTION_MS))
    return tuple(rules)


def _cap_rule(ad: Ad, cap: Cap) -> Rule:
    key = {
        "ad": ad_key(ad.id),
        "campaign": campaign_key(ad.campaign.id),
        "advertiser": advertiser_key(ad.advertiser),
        "all": ALL,
    }[cap.scope]
    return Rule(key, cap.count, cap.window_s * 1_000)
