"""What makes traffic invalid: the operator's rules, where an event came from, and the reasons."""

from enum import StrEnum
from typing import Annotated, NamedTuple

from msgspec import Meta, Struct

COUNTED_MAX = 1_000
"""The most that a rate may allow: so many marks are remembered of each key."""


class Reason(StrEnum):
    """In the order in which they are looked for: the first that holds is an event's reason."""

    DECLARED_BOT = "declared_bot"
    DATA_CENTRE = "data_centre"
    IMPOSSIBLE_VIEW = "impossible_view"
    INVALID_IMPRESSION = "invalid_impression"
    IMPOSSIBLE_ORDER = "impossible_order"
    IMPOSSIBLE_SPEED = "impossible_speed"
    TOO_MANY_IMPRESSIONS = "too_many_impressions"
    CLICK_FLOOD_OF_VIEWER = "click_flood_of_viewer"
    CLICK_FLOOD_OF_ADDRESS = "click_flood_of_address"
    SHARED_DEVICE = "shared_device"


class Rate(Struct, frozen=True, forbid_unknown_fields=True):
    """What goes beyond `count` within `window_s` seconds is invalid."""

    count: Annotated[int, Meta(ge=1, le=COUNTED_MAX)]
    window_s: Annotated[int, Meta(ge=1, le=86_400)]


class Rules(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The operator's part of the rules; null switches off what has no other switch.

    `clients_allowed` are names of the list of crawlers that are clients of our own. A click sooner than `click_after_ms`
    after its impression is no person's; a view may be claimed longer than its ticket has existed by `view_slack_ms`.
    """

    clients_allowed: Annotated[tuple[Annotated[str, Meta(max_length=200)], ...], Meta(max_length=100)] = (
        "WhatsApp",
        "okhttp",
    )
    declared_bots: bool = True
    data_centres: bool = True
    impossible_order: bool = True
    click_after_ms: Annotated[int, Meta(ge=1, le=60_000)] | None = 100
    view_slack_ms: Annotated[int, Meta(ge=0, le=3_600_000)] | None = 5_000
    impressions_of_viewer: Rate | None = Rate(count=120, window_s=60)
    clicks_of_viewer: Rate | None = Rate(count=30, window_s=60)
    clicks_of_address: Rate | None = Rate(count=600, window_s=60)
    viewers_of_device: Rate | None = Rate(count=5, window_s=86_400)


class Source(NamedTuple):
    """Where a report says that its event came from, as it came in: never stored, never logged."""

    user_agent: str | None = None
    address: str | None = None
    device: str | None = None


NOBODY = Source()


class Origin(NamedTuple):
    """What is kept of a source.

    `crawlers` are the names in the list of crawlers that its user agent has. `address` (of IPv6 its /64) and `device` are
    pseudonyms of the month, `network` is the /24 or /48 around the address. `hosted` says that the address was in
    a data centre when the event came.
    """

    crawlers: tuple[str, ...] = ()
    network: str | None = None
    address: bytes | None = None
    device: bytes | None = None
    hosted: bool = False


NOWHERE = Origin()


class Verdict(NamedTuple):
    """`rules` is the version that judged, None where none did; `reason` is None for valid traffic."""

    reason: Reason | None = None
    rules: int | None = None
    origin: Origin = NOWHERE


UNJUDGED = Verdict()
