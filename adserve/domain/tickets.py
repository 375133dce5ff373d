"""What a ticket seals: every fact that a later event needs, so that it never reads the catalogue.

The wire form is a versioned array; new fields go to the end with a default, so that old tickets still open.
"""

from uuid import UUID

import msgspec

VIEW_LEAST_MS = {"image": 1_000, "video": 2_000}
"""How long an ad of a kind is on screen before it counts as viewed (MRC, Viewable Ad Impression Measurement Guidelines)."""


class Ticket(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One placement's sealed facts. Times are milliseconds since the epoch, money is micros.

    `price_micros` is whole micros per event of kind `billable`. `viewer_cap` (pseudonym for caps and hides) and
    `viewer_log` (pseudonym of the month) are 16 bytes each. `budget_day` is the ordinal of the day in the
    campaign's time zone. `rules` are the counting rules (key, count, window_ms) that an impression must fit
    again when its reservation is no longer known, and `labels` the separation labels it counts on. `view_least_ms` is how
    long a view has to last.
    """

    ticket: UUID
    decision: UUID
    advertiser: int
    campaign: int
    ad: int
    creative: int
    revision: int
    viewer_cap: bytes
    viewer_log: bytes
    price_micros: int
    currency: str
    billable: str
    lease: int
    budget_day: int
    epoch: int
    surface: str
    country: str
    platform: str
    position: int
    propensity: float
    model: str
    catalogue_version: int
    rules_version: int
    arm: str
    issued_at_ms: int
    expires_at_ms: int
    bid_model: str = "cpm"
    rules: tuple[tuple[str, int, int], ...] = ()
    labels: tuple[str, ...] = ()
    view_least_ms: int = VIEW_LEAST_MS["image"]
