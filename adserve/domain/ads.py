"""Campaigns, creatives and the ads that join them, as a decision reads them."""

from enum import IntEnum
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from msgspec import Meta, Struct

from adserve.domain.ids import AdId, AdvertiserId, CampaignId, CreativeId
from adserve.domain.targeting import Targeting

CAP_WINDOW_MAX_S = 180 * 86_400

CapScope = Literal["ad", "campaign", "advertiser", "all"]


class Cap(Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """At most `count` impressions of the scope for a viewer in any `window_s` seconds."""

    scope: CapScope
    count: Annotated[int, Meta(ge=1, le=1_000)]
    window_s: Annotated[int, Meta(ge=60, le=CAP_WINDOW_MAX_S)]


class Tier(IntEnum):
    """Guaranteed ads go before the auction and take no part in it."""

    GUARANTEED = 0
    AUCTION = 1


class Campaign(Struct, frozen=True, gc=False):
    """`bid_micros` is per 1,000 impressions or views for `cpm`, per click for `cpc`."""

    id: CampaignId
    advertiser: AdvertiserId
    name: str
    starts_at_ms: int
    ends_at_ms: int | None
    time_zone: str
    bid_model: Literal["cpm", "cpc"]
    bid_micros: int
    currency: str
    billable: Literal["impression", "view", "click"]
    budget_daily_micros: int | None
    budget_total_micros: int | None
    pacing: Literal["even", "asap"]
    tier: Tier
    targeting: Targeting
    caps: tuple[Cap, ...]
    separation: tuple[str, ...]

    @property
    def event_bid_micros(self) -> int:
        """The most that one billable event may cost; a CPM price is a multiple of 1,000, so this is exact."""
        return self.bid_micros // 1_000 if self.bid_model == "cpm" else self.bid_micros

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.time_zone)


class Creative(Struct, frozen=True, gc=False):
    id: CreativeId
    revision: int
    kind: Literal["image", "video"]
    media: str
    width: int
    height: int
    headline: str
    body: str
    call_to_action: str
    landing_url: str


class Ad(Struct, frozen=True, eq=False, gc=False):
    """A campaign's creative: what is placed. Compared by identity; a snapshot has one object for each."""

    id: AdId
    advertiser: AdvertiserId
    advertiser_name: str
    campaign: Campaign
    creative: Creative
