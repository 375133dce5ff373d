"""Each rule with what it catches, and with what only looks like it."""

import json
from typing import Any, NamedTuple
from uuid import UUID

import crawleruseragents
import msgspec
import pytest
from world import NOW_MS

from adserve.domain.events import EventKind
from adserve.domain.ids import uuid7
from adserve.domain.time import HOUR_MS, SECOND_MS
from adserve.domain.traffic import NOWHERE, Origin, Rate, Reason, Rules, Source
from adserve.metering.networks import NO_NETWORKS, decode_networks
from adserve.metering.origins import Origins, crawlers_of
from adserve.metering.pseudonyms import Pseudonyms, ViewerSecrets
from adserve.metering.traffic import Judge, Moments, Traffic

IMPRESSION, VIEW, CLICK, COMPLETE = (
    EventKind.IMPRESSION,
    EventKind.VIEW,
    EventKind.CLICK,
    EventKind.COMPLETE,
)
PERSON = "Mozilla/5.0 (Linux; Android 13; SM-S901B) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Mobile Safari/537.36"
IPHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148"
GOOGLEBOT = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
AMAZON = "52.95.110.0/24\n2600:1f00::/24 # Amazon\n"
SEEN_AT_MS = NOW_MS + 10 * SECOND_MS
ORIGINS = Origins(Pseudonyms(ViewerSecrets(b"c" * 32, ((0, b"m" * 32),))))


class Facts(NamedTuple):
    ticket: UUID
    viewer_cap: bytes
    issued_at_ms: int = NOW_MS


def ticket(nth: int = 1, viewer: int = 1) -> Facts:
    return Facts(uuid7(NOW_MS, nth * 0x9E3779B97F4A7C15), viewer.to_bytes(2, "little") * 8)


def judged(
    judge: Judge,
    kind: EventKind,
    facts: Facts,
    origin: Origin = NOWHERE,
    *,
    at_ms: int = SEEN_AT_MS,
    **more: int,
) -> Reason | None:
    return judge.judge(kind, facts, Moments(at_ms, **more), origin)


def of_agent(user_agent: str) -> Reason | None:
    origin = ORIGINS.of(Source(user_agent=user_agent), NO_NETWORKS, NOW_MS)
    return judged(Judge(Rules()), IMPRESSION, ticket(), origin)


@pytest.mark.parametrize(
    "user_agent",
    [
        GOOGLEBOT,
        "curl/8.5.0",
        "python-requests/2.32.3",
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/126.0.0.0 Safari/537.36",
        "facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)",
        "WhatsApp/2.26.1 A Googlebot/2.1",  # one of ours is no cloak
        "okhttp/4.12.0 python-requests/2.32.3",
    ],
)
def test_a_declared_bot_is_invalid(user_agent: str) -> None:
    assert of_agent(user_agent) is Reason.DECLARED_BOT


@pytest.mark.parametrize(
    "user_agent",
    [
        PERSON,
        IPHONE,
        "WhatsApp/2.26.1 A",
        "WhatsApp/2.23.20.0 i",
        "okhttp/4.12.0",
        "CUBOT X30",
        "",
        "\x00é😀",
    ],
)
def test_people_and_clients_of_our_own_are_valid(user_agent: str) -> None:
    assert of_agent(user_agent) is None


def test_control_the_list_of_crawlers_has_our_own_clients() -> None:
    """Without the names that are allowed, every impression of the app would be a bot's."""
    for user_agent in ("WhatsApp/2.26.1 A", "okhttp/4.12.0"):
        origin = ORIGINS.of(Source(user_agent=user_agent), NO_NETWORKS, NOW_MS)
        strict = Judge(Rules(clients_allowed=()))
        assert judged(strict, IMPRESSION, ticket(), origin) is Reason.DECLARED_BOT
        assert judged(Judge(Rules()), IMPRESSION, ticket(), origin) is None


def test_every_example_of_the_list_of_crawlers_is_known() -> None:
    examples = [
        (crawler["pattern"], example)
        for crawler in crawleruseragents.CRAWLER_USER_AGENTS_DATA
        for example in crawler["instances"]
        if len(example) <= 512
    ]
    assert len(examples) > 2_000
    assert [example for name, example in examples if name not in crawlers_of.__wrapped__(example)] == []


def of_address(address: str, networks: bytes = AMAZON.encode()) -> Reason | None:
    origin = ORIGINS.of(Source(PERSON, address), decode_networks(networks), NOW_MS)
    return judged(Judge(Rules()), IMPRESSION, ticket(), origin)


@pytest.mark.parametrize(
    "address", ["52.95.110.0", "52.95.110.255", "::ffff:52.95.110.7", "2600:1f00::1", "2600:1fff:ffff::9"]
)
def test_an_address_of_a_data_centre_is_invalid(address: str) -> None:
    assert of_address(address) is Reason.DATA_CENTRE


@pytest.mark.parametrize(
    "address", ["52.95.109.255", "52.95.111.0", "2600:2000::1", "2600:1eff:ffff::1", "10.0.0.1", "no address"]
)
def test_an_address_beside_a_data_centre_is_valid(address: str) -> None:
    assert of_address(address) is None


def test_addresses_that_are_not_public_say_nothing() -> None:
    """Behind a balancer that is not named as one, every viewer would have its address."""
    for address in ("127.0.0.1", "10.1.2.3", "192.168.0.9", "100.64.0.1", "::1", "fd00::1", "fe80::1"):
        assert ORIGINS.of(Source(None, address), decode_networks(b"10.0.0.0/8"), NOW_MS) == NOWHERE


def test_nothing_that_is_kept_of_a_source_is_raw() -> None:
    source = Source(f"{GOOGLEBOT} u-123", "81.2.69.142", "device-7")
    kept = ORIGINS.of(source, NO_NETWORKS, NOW_MS)
    assert kept.network == "81.2.69.0/24"
    written = repr(kept)
    assert not any(raw in written for raw in ("u-123", "81.2.69.142", "device-7", "Mozilla"))
    assert kept == ORIGINS.of(source, NO_NETWORKS, NOW_MS + HOUR_MS)
    subscriber = [ORIGINS.of(Source(None, f"2a02:8109:1:2::{n}"), NO_NETWORKS, NOW_MS) for n in (1, 2)]
    assert subscriber[0] == subscriber[1]
    assert subscriber[0].network == "2a02:8109:1::/48"
    assert subscriber[0] != ORIGINS.of(Source(None, "2a02:8109:1:3::1"), NO_NETWORKS, NOW_MS)


def test_a_view_cannot_have_lasted_longer_than_its_ticket() -> None:
    judge = Judge(Rules(view_slack_ms=500))
    at_ms = NOW_MS + 3_000
    assert judged(judge, VIEW, ticket(1), at_ms=at_ms, view_ms=3_501) is Reason.IMPOSSIBLE_VIEW
    assert judged(judge, VIEW, ticket(2), at_ms=at_ms, view_ms=3_500) is None
    assert judged(judge, IMPRESSION, ticket(3), at_ms=at_ms, view_ms=3_600_000) is Reason.IMPOSSIBLE_VIEW
    assert judged(judge, VIEW, ticket(4), at_ms=at_ms) is None
    assert judged(Judge(Rules(view_slack_ms=None)), VIEW, ticket(1), at_ms=at_ms, view_ms=3_501) is None


@pytest.mark.parametrize(
    ("kind", "after_ms", "reason"),
    [
        (CLICK, -1, Reason.IMPOSSIBLE_ORDER),
        (VIEW, -60_000, Reason.IMPOSSIBLE_ORDER),
        (COMPLETE, -1, Reason.IMPOSSIBLE_ORDER),
        (CLICK, 0, Reason.IMPOSSIBLE_SPEED),
        (CLICK, 99, Reason.IMPOSSIBLE_SPEED),
        (CLICK, 100, None),
        (CLICK, 40 * 60_000, None),
        (VIEW, 0, None),
    ],
)
def test_order_and_speed_by_the_clients_own_clock(
    kind: EventKind, after_ms: int, reason: Reason | None
) -> None:
    for skew_ms in (0, -3 * HOUR_MS, 5 * HOUR_MS):  # whatever that clock says
        judge, at_ms = Judge(Rules()), NOW_MS + skew_ms
        assert judged(judge, IMPRESSION, ticket(), occurred_at_ms=at_ms) is None
        assert judged(judge, kind, ticket(), occurred_at_ms=at_ms + after_ms) is reason


def test_order_and_speed_need_both_moments_of_one_clock() -> None:
    judge = Judge(Rules())
    assert judged(judge, IMPRESSION, ticket(1)) is None
    assert judged(judge, CLICK, ticket(1), occurred_at_ms=NOW_MS - HOUR_MS) is None
    assert judged(judge, IMPRESSION, ticket(2), occurred_at_ms=NOW_MS + HOUR_MS) is None
    assert judged(judge, CLICK, ticket(2)) is None
    assert judged(judge, CLICK, ticket(3), occurred_at_ms=NOW_MS) is None  # no impression, or it is late
    assert judged(judge, IMPRESSION, ticket(3), occurred_at_ms=NOW_MS + 5) is None
    off = Judge(Rules(impossible_order=False, click_after_ms=None))
    assert judged(off, IMPRESSION, ticket(), occurred_at_ms=NOW_MS) is None
    assert judged(off, CLICK, ticket(), occurred_at_ms=NOW_MS - 5) is None
    assert judged(off, VIEW, ticket(), occurred_at_ms=NOW_MS) is None


def test_what_follows_an_invalid_impression_is_invalid() -> None:
    judge = Judge(Rules())
    assert judged(judge, IMPRESSION, ticket(1), Origin(hosted=True)) is Reason.DATA_CENTRE
    assert judged(judge, CLICK, ticket(1)) is Reason.INVALID_IMPRESSION
    assert judged(judge, CLICK, ticket(2)) is None


def impressions(judge: Judge, count: int, every_ms: int, viewer: int = 1) -> list[Reason | None]:
    return [
        judged(judge, IMPRESSION, ticket(nth, viewer), at_ms=SEEN_AT_MS + nth * every_ms)
        for nth in range(count)
    ]


def test_more_impressions_than_a_viewer_can_see() -> None:
    judge = Judge(Rules(impressions_of_viewer=Rate(count=3, window_s=10)))
    assert impressions(judge, 5, 1_000) == [None, None, None, *[Reason.TOO_MANY_IMPRESSIONS] * 2]
    assert impressions(judge, 3, 1_000, viewer=2) == [None] * 3
    assert (
        impressions(Judge(Rules(impressions_of_viewer=Rate(count=3, window_s=3))), 30, 1_000) == [None] * 30
    )
    assert impressions(Judge(Rules(impressions_of_viewer=None)), 500, 1) == [None] * 500


def test_a_view_of_a_ticket_is_no_further_impression_and_neither_is_a_retry() -> None:
    judge = Judge(Rules(impressions_of_viewer=Rate(count=2, window_s=60)))
    for nth in (1, 2):
        for kind in (IMPRESSION, VIEW, IMPRESSION, IMPRESSION):
            assert judged(judge, kind, ticket(nth)) is None
    assert judged(judge, VIEW, ticket(3)) is Reason.TOO_MANY_IMPRESSIONS
    assert judged(judge, VIEW, ticket(3)) is Reason.TOO_MANY_IMPRESSIONS
    assert judged(judge, VIEW, ticket(2)) is None


def test_what_a_client_kept_back_is_no_flood() -> None:
    """It was on a plane for an hour: what it saw then comes all at once, each with its own moment."""
    judge = Judge(Rules(impressions_of_viewer=Rate(count=3, window_s=60)))
    told = [NOW_MS + nth * 30_000 for nth in range(100)]
    assert {
        judged(judge, IMPRESSION, ticket(nth), at_ms=NOW_MS + HOUR_MS, occurred_at_ms=at_ms)
        for nth, at_ms in enumerate(told)
    } == {None}
    # A moment that cannot be true does not count: before the ticket, or after it was told.
    judge = Judge(Rules(impressions_of_viewer=Rate(count=3, window_s=60)))
    lies = [NOW_MS - (nth + 1) * HOUR_MS for nth in range(4)]
    assert [
        judged(judge, IMPRESSION, ticket(nth), occurred_at_ms=at_ms) for nth, at_ms in enumerate(lies)
    ] == [None, None, None, Reason.TOO_MANY_IMPRESSIONS]


def test_click_floods_of_a_viewer_and_of_an_address() -> None:
    rules = Rules(clicks_of_viewer=Rate(count=2, window_s=60), clicks_of_address=Rate(count=4, window_s=60))
    judge, here, there = Judge(rules), Origin(address=b"h" * 16), Origin(address=b"t" * 16)
    verdicts = [judged(judge, CLICK, ticket(nth, viewer=1), here) for nth in range(3)]
    assert verdicts == [None, None, Reason.CLICK_FLOOD_OF_VIEWER]
    verdicts = [judged(judge, CLICK, ticket(10 + nth, viewer=10 + nth), here) for nth in range(4)]
    assert verdicts == [None, None, Reason.CLICK_FLOOD_OF_ADDRESS, Reason.CLICK_FLOOD_OF_ADDRESS]
    assert judged(judge, CLICK, ticket(20, viewer=20), there) is None
    assert judged(judge, IMPRESSION, ticket(21, viewer=1), here) is None
    a_minute_later = SEEN_AT_MS + 60 * SECOND_MS
    assert judged(judge, CLICK, ticket(22, viewer=1), here, at_ms=a_minute_later) is None


def test_one_device_that_is_many_viewers() -> None:
    judge = Judge(Rules(viewers_of_device=Rate(count=2, window_s=60)))
    device = Origin(device=b"d" * 16)
    verdicts = [judged(judge, IMPRESSION, ticket(v, viewer=v), device) for v in (1, 2, 1, 3, 2, 4, 1)]
    shared = Reason.SHARED_DEVICE
    assert verdicts == [None, None, None, shared, None, shared, shared]  # by then all of it is in doubt
    assert judged(judge, IMPRESSION, ticket(9, viewer=9), Origin(device=b"e" * 16)) is None
    later = SEEN_AT_MS + 60 * SECOND_MS
    assert judged(judge, IMPRESSION, ticket(7, viewer=3), device, at_ms=later) is None


def test_viewers_who_are_not_named_are_not_one_viewer() -> None:
    """Of those who were erased, late events come without a name: they have no rate, and nothing of their source is kept."""
    nobody = [ticket(nth)._replace(viewer_cap=b"") for nth in range(9)]
    one = Rate(count=1, window_s=60)
    judge = Judge(Rules(impressions_of_viewer=one, clicks_of_viewer=one, viewers_of_device=one))
    device = Origin(device=b"d" * 16)
    assert {judged(judge, kind, each, device) for each in nobody for kind in (IMPRESSION, CLICK)} == {None}
    traffic = Traffic(ORIGINS)
    traffic.use(1, Rules(), NO_NETWORKS)
    source = Source(GOOGLEBOT, "81.2.69.142", "d")
    assert traffic.judge(IMPRESSION, nobody[0], Moments(SEEN_AT_MS), source) == (
        Reason.DECLARED_BOT,
        1,
        NOWHERE,
    )


def test_the_first_reason_decides() -> None:
    judge = Judge(Rules(impressions_of_viewer=Rate(count=1, window_s=60), view_slack_ms=0))
    everything = Origin(("Googlebot\\/",), hosted=True)
    assert judged(judge, IMPRESSION, ticket(1), everything, view_ms=10**6) is Reason.DECLARED_BOT
    assert judged(judge, IMPRESSION, ticket(2), Origin(hosted=True), view_ms=10**6) is Reason.DATA_CENTRE
    assert judged(judge, IMPRESSION, ticket(3), view_ms=10**6) is Reason.IMPOSSIBLE_VIEW
    assert judged(Judge(Rules(declared_bots=False)), IMPRESSION, ticket(1), everything) is Reason.DATA_CENTRE
    assert (
        judged(Judge(Rules(declared_bots=False, data_centres=False)), IMPRESSION, ticket(1), everything)
        is None
    )


def test_before_there_are_rules_nothing_is_judged() -> None:
    seen: list[Reason] = []
    traffic = Traffic(ORIGINS, seen.append)
    moments, source = Moments(SEEN_AT_MS), Source(GOOGLEBOT)
    assert traffic.judge(IMPRESSION, ticket(), moments, source).rules is None
    traffic.use(7, Rules(), NO_NETWORKS)
    verdict = traffic.judge(IMPRESSION, ticket(), moments, source)
    assert (verdict.reason, verdict.rules, verdict.origin.crawlers) == (
        Reason.DECLARED_BOT,
        7,
        ("Googlebot\\/",),
    )
    assert traffic.judge(IMPRESSION, ticket(2), moments, None) == (None, 7, NOWHERE)
    traffic.use(8, Rules(declared_bots=False), NO_NETWORKS)
    assert traffic.judge(IMPRESSION, ticket(3), moments, source)[:2] == (None, 8)
    assert seen == [Reason.DECLARED_BOT]


@pytest.mark.parametrize(
    "written",
    [
        {"clicks_of_viewer": {"count": 0, "window_s": 60}},
        {"clicks_of_viewer": {"count": 1_001, "window_s": 60}},
        {"clicks_of_viewer": {"count": 1}},
        {"click_after_ms": -1},
        {"clicks_of_nobody": None},
    ],
    ids=json.dumps,
)
def test_rules_are_checked(written: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(written, Rules)
