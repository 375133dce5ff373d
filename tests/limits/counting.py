"""What the counters are asked in these tests: a few ads of a few campaigns, and the tickets for them."""

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from adserve.domain.ids import uuid7
from adserve.domain.tickets import Ticket
from adserve.limits.counters import MemoryCounters
from adserve.limits.reservations import Candidate, Reservation
from adserve.limits.rules import ALL, Rule, advertiser_key, campaign_key, hide_key, keys_counted, label_key

KINDS: dict[str, Callable[[int], Any]] = {"memory": MemoryCounters}
"""Every kind of counters, made from an epoch: each must pass the same suites."""

START_MS = 1_767_225_600_000
TTL_MS = 3_600_000
VIEWER = b"v" * 16
HIDE_WINDOW_MS = 200 * 86_400_000


class Shown(NamedTuple):
    """An ad as the counters know it. `caps` hold for its tickets too, `others` for placing it only."""

    ad: int
    campaign: int
    advertiser: int
    caps: tuple[Rule, ...] = ()
    others: tuple[Rule, ...] = ()
    labels: tuple[str, ...] = ()
    tier: int = 1

    @property
    def candidate(self) -> Candidate:
        hide = Rule(hide_key(self.advertiser), 1, HIDE_WINDOW_MS)
        return Candidate(self.advertiser, self.tier, self.keys, (*self.caps, *self.others, hide))

    @property
    def keys(self) -> tuple[str, ...]:
        return keys_counted(self.ad, self.campaign, self.advertiser, self.labels)

    def ticket(
        self, ticket: UUID, viewer: bytes = VIEWER, at_ms: int = START_MS, ttl_ms: int = TTL_MS
    ) -> Ticket:
        return Ticket(
            ticket=ticket, decision=ticket, advertiser=self.advertiser, campaign=self.campaign, ad=self.ad,
            creative=self.ad, revision=1, viewer_cap=viewer, viewer_log=viewer, price_micros=1_000, currency="USD",
            billable="impression", lease=1, budget_day=1, epoch=1, surface="status", country="", platform="",
            position=3, propensity=1.0, model="prior", catalogue_version=1, rules_version=1, arm="exposed",
            issued_at_ms=at_ms, expires_at_ms=at_ms + ttl_ms,
            rules=tuple((rule.key, rule.most, rule.window_ms) for rule in self.caps), labels=self.labels,
        )  # fmt: skip  # laid out as rows


def campaign_cap(campaign: int, most: int, window_s: int) -> Rule:
    return Rule(campaign_key(campaign), most, window_s * 1_000)


def advertiser_cap(advertiser: int, most: int, window_s: int) -> Rule:
    return Rule(advertiser_key(advertiser), most, window_s * 1_000)


def cap_on_all(most: int, window_s: int) -> Rule:
    return Rule(ALL, most, window_s * 1_000)


def label_rule(label: str, window_s: int) -> Rule:
    return Rule(label_key(label), 1, window_s * 1_000)


async def parts(whole: Iterable[bytes]) -> AsyncIterator[bytes]:
    """A checkpoint, as it is read."""
    for part in whole:
        yield part


def ticket_id(number: int) -> UUID:
    return uuid7(START_MS, number)


def reservation(
    ads: Sequence[Shown],
    tickets: Sequence[UUID],
    at_ms: int = START_MS,
    ttl_ms: int = TTL_MS,
    request: str | None = None,
    digest: bytes = b"",
    memo: object = None,
) -> Reservation:
    return Reservation(
        decision=tickets[0],
        candidates=[ad.candidate for ad in ads],
        tickets=tickets,
        expires_at_ms=at_ms + ttl_ms,
        request=request,
        digest=digest,
        memo=memo,
    )


A = Shown(ad=1, campaign=1, advertiser=1)
B = Shown(ad=2, campaign=2, advertiser=2)
C = Shown(ad=3, campaign=3, advertiser=1)


def capped(most: int, window_s: int = 86_400) -> Shown:
    return A._replace(caps=(campaign_cap(1, most, window_s),))


async def reserve_one(
    counters: Any, ad: Shown, number: int, at_ms: int = START_MS, ttl_ms: int = TTL_MS
) -> bool:
    grant = await counters.reserve(VIEWER, reservation([ad], [ticket_id(number)], at_ms, ttl_ms), at_ms)
    return grant.reserved == (0,)
