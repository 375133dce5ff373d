"""A request for ad slots, and why it may stay without ads."""

from enum import StrEnum

import msgspec


class NoFill(StrEnum):
    """Why a decision placed nothing."""

    ROLLOUT_PAUSED = "rollout_paused"
    NOT_IN_ROLLOUT = "not_in_rollout"
    HOLDOUT = "holdout"
    OPTED_OUT = "opted_out"
    FEED_TOO_SHORT = "feed_too_short"
    NO_ELIGIBLE_AD = "no_eligible_ad"
    FREQUENCY_CAPPED = "frequency_capped"
    BUDGET_SPENT = "budget_spent"
    PACED_OUT = "paced_out"
    BELOW_FLOOR = "below_floor"
    DEADLINE = "deadline"
    DEGRADED = "degraded"
    OVERLOADED = "overloaded"


class Viewer(msgspec.Struct, frozen=True, gc=False):
    """The viewer's keys: the raw id stays in memory, the pseudonyms (16 bytes each) may be stored.

    `buckets` of the rollout and of the holdout are told where the raw id is not known: in a recorded decision.
    """

    raw: str
    cap: bytes
    log: bytes
    buckets: tuple[int, int] | None = None


class Context(msgspec.Struct, frozen=True):
    """What the caller tells about the viewer. Every part may be missing."""

    country: str | None = None
    language: str | None = None
    platform: str | None = None
    app_version: str | None = None
    age: int | None = None
    interests: tuple[str, ...] = ()
    time_zone: str | None = None
    custom: dict[str, str] = {}


class Ask(msgspec.Struct, frozen=True, gc=False):
    """A request for slots after decoding and authentication.

    `authors` has the author of each organic item in feed order; a None there, or `authors` None altogether with
    only a `feed_length`, is an author of its own. `floor_micros` is per 1,000 impressions. `request` is the
    caller's own id and `digest` the hash of what it asked under it.
    """

    viewer: Viewer
    surface: str
    feed_length: int
    authors: tuple[str | None, ...] | None
    max_ads: int
    context: Context
    floor_micros: int = 0
    deadline_ms: int = 30
    ticket_ttl_s: int = 3_600
    personalised: bool = False
    ads_allowed: bool = True
    explain: bool = False
    request: str | None = None
    digest: bytes = b""
