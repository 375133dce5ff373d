"""Everything that decisions read, as it stood at one moment."""

from bisect import bisect_left
from collections.abc import Mapping
from operator import attrgetter

from msgspec import Struct
from msgspec.structs import replace

from adserve.domain.ads import Ad, Campaign
from adserve.domain.ids import AdId, CampaignId
from adserve.domain.rollouts import Stages, SurfaceRollout

SNAPSHOT_MAX_AGE_MS = 300_000

_NO_ROLLOUT = SurfaceRollout()


class Snapshot(Struct, frozen=True):
    """`version` counts catalogue changes; `ads`, in the order of their ids, are those of active campaigns, creatives and
    advertisers as read at `read_at_ms`, `campaigns` theirs, and `news` those that the snapshot before did not have like
    this.

    An ad or campaign that did not change is the same object from one snapshot to the next, and so is `ads` when none did.
    `qualities` are in (0, 1]: what the value of an ad is multiplied by because people hide it; one that is absent has 1.
    `stages` are those of the ramps under way.
    """

    version: int
    ads: tuple[Ad, ...]
    rollouts: Mapping[str, SurfaceRollout]
    campaigns: Mapping[CampaignId, Campaign] = {}
    news: tuple[Ad, ...] = ()
    qualities: Mapping[AdId, float] = {}
    read_at_ms: int = 0
    stages: Stages = {}

    def rollout_of(self, surface: str) -> SurfaceRollout:
        """One that nobody has set admits nobody."""
        return self.rollouts.get(surface, _NO_ROLLOUT)


EMPTY = Snapshot(0, (), {})
"""What a replica knows before it has read anything."""


def changed(known: Snapshot, newer: Snapshot, changes: Mapping[AdId, Ad | None]) -> Snapshot:
    """`newer` with the ads of `known`, but for those that are new or have changed, and those that are gone: None.

    Costs what the changes cost, and the copying of two columns.
    """
    if not changes:
        return replace(newer, ads=known.ads, campaigns=known.campaigns)
    ads = list(known.ads)
    news: list[Ad] = []
    parted: set[CampaignId] = set()
    for number in sorted(changes):
        ad = changes[number]
        place = bisect_left(ads, number, key=_ad_id)
        end = place + (place < len(ads) and ads[place].id == number)
        parted.update(before.campaign.id for before in ads[place:end])
        ads[place:end] = [] if ad is None else [ad]
        if ad is not None:
            news.append(ad)
    campaigns = dict(known.campaigns)
    campaigns.update((ad.campaign.id, ad.campaign) for ad in news)
    parted.difference_update(ad.campaign.id for ad in news)
    if parted:
        parted.difference_update([ad.campaign.id for ad in ads])
    for campaign in parted:
        del campaigns[campaign]
    return replace(newer, ads=tuple(ads), campaigns=campaigns, news=tuple(news))


_ad_id = attrgetter("id")
