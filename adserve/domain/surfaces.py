"""The places in the app where ads may stand."""

from typing import Annotated

from msgspec import Meta, Struct

from adserve.domain.targeting import Country

Positive = Annotated[int, Meta(ge=1)]
NotNegative = Annotated[int, Meta(ge=0)]
Currency = Annotated[str, Meta(pattern="^[A-Z]{3}$", max_length=3)]


class Surface(Struct, frozen=True, forbid_unknown_fields=True):
    """Where ads may stand in a feed.

    `group` seeds the rollout and never changes while ads run. The first ad comes after `first_ad_after` organic
    items, `min_gap` of them lie between two ads, a feed has at most `max_per_feed` ads and none below
    `min_feed_length` items. `min_time_s` lies between two ads of different requests and `separation_s` between
    two that share a separation label; 0 switches either off. 1,000 impressions are worth at least `floor_micros`, or
    what `floors_micros` says for the viewer's country.
    """

    currency: Currency = "USD"
    group: str = "status"
    first_ad_after: Positive = 3
    min_gap: Positive = 4
    max_per_feed: Positive = 5
    min_feed_length: Positive = 5
    min_time_s: NotNegative = 0
    separation_s: NotNegative = 0
    floor_micros: NotNegative = 0
    floors_micros: dict[Country, NotNegative] = {}

    def floor_micros_for(self, country: str | None) -> int:
        return self.floors_micros.get(country, self.floor_micros) if country else self.floor_micros
