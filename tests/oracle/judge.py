"""The judge: knows nothing but the caps and the events that were stored, and looks at every window that ends with one."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Collection, Iterable
from typing import NamedTuple

from adserve.domain.ads import Ad
from adserve.domain.events import EventKind, Outcome

SHOWN = (EventKind.IMPRESSION, EventKind.VIEW)
UNCOUNTED = (Outcome.LATE, Outcome.OVER_CAP)

Subject = tuple[str, int]
"""What a cap counts on: a scope and whose it is."""


class Limit(NamedTuple):
    """At most `most` counted impressions of the subject for a viewer in any `window_ms`."""

    subject: Subject
    most: int
    window_ms: int


def limits_of(ads: Iterable[Ad]) -> set[Limit]:
    return {
        Limit((cap.scope, dict(subjects_of(ad.id, ad.campaign.id, ad.advertiser))[cap.scope]), cap.count, cap.window_s * 1_000)
        for ad in ads for cap in ad.campaign.caps
    }  # fmt: skip  # laid out as rows


def subjects_of(ad: int, campaign: int, advertiser: int) -> tuple[Subject, ...]:
    return ("ad", ad), ("campaign", campaign), ("advertiser", advertiser), ("all", 0)


def violations(limits: Iterable[Limit], stored: Iterable[object]) -> list[str]:
    """`stored` are events with the attributes of adserve.limits.rebuild.Counted, in any order.

    A ticket counts once: at its first impression or view, when that is in time and not over a cap.
    """
    moments: dict[tuple[bytes, Subject], list[int]] = defaultdict(list)
    for event in _first_of_each_ticket(stored):
        for subject in subjects_of(event.ad, event.campaign, event.advertiser):
            moments[event.viewer, subject].append(event.received_at_ms)
    by_subject = defaultdict(list)
    for limit in limits:
        by_subject[limit.subject].append(limit)
    found = []
    for (viewer, subject), unsorted in moments.items():
        times = sorted(unsorted)
        for _, most, window_ms in by_subject[subject]:
            for nth, end_ms in enumerate(times):
                together = nth + 1 - bisect_right(times, end_ms - window_ms)
                if together > most:
                    found.append(
                        f"{viewer.hex()}: {together} of {subject} within {window_ms} ms before {end_ms}"
                    )
    return found


def summary(stored: Collection[object], found: list[str]) -> str:
    counted = sum(event.outcome not in UNCOUNTED for event in stored)
    return f"{len(stored):,} events stored, {counted:,} of them counted, {len(found)} violations"


def _first_of_each_ticket(stored: Iterable[object]) -> Iterable:
    first = {}
    for event in stored:
        if event.kind in SHOWN and event.outcome not in UNCOUNTED:
            known = first.get(event.ticket)
            if known is None or event.received_at_ms < known.received_at_ms:
                first[event.ticket] = event
    return first.values()
