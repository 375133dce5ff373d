"""/v1/ads: a campaign's creative, which is what a decision places."""

from msgspec import Struct

from adserve.api.resource import Resource
from adserve.api.shapes import Id, Moment, Status, changes_of
from adserve.domain.ids import AdvertiserId
from adserve.store.desk import Connection
from adserve.store.errors import Missing, UnknownReference
from adserve.store.setup import ADS, Row, advertiser_of
from adserve.web.paging import PageQuery


class NewAd(Struct, frozen=True, forbid_unknown_fields=True):
    """Both belong to one advertiser."""

    campaign: Id
    creative: Id


class Ad(Struct, frozen=True, kw_only=True):
    id: int
    advertiser: int
    campaign: int
    creative: int
    status: Status
    created_at: Moment
    updated_at: Moment


class AdQuery(PageQuery, frozen=True, forbid_unknown_fields=True):
    advertiser: Id | None = None
    campaign: Id | None = None


class Ads(Resource):
    table = ADS
    noun = "ad"
    body = NewAd
    changes = changes_of("AdChanges", NewAd, but=frozenset({"campaign"}))
    answer = Ad
    query = AdQuery
    example = {"campaign": 7, "creative": 31}  # noqa: RUF012 - the base declares it a ClassVar

    def encode(self, row: Row) -> Ad:
        return Ad(
            id=row["id"],
            advertiser=row["advertiser_id"],
            campaign=row["campaign_id"],
            creative=row["creative_id"],
            status=row["status"],
            created_at=row["created_at"],
            updated_at=row["updated_at"],
        )

    def body_of(self, row: Row) -> NewAd:
        return NewAd(row["campaign_id"], row["creative_id"])

    async def columns(
        self, connection: Connection, _tenant: AdvertiserId | None, body: NewAd, _stored: Row | None
    ) -> Row:
        try:
            owner = await advertiser_of(connection, body.campaign)
        except Missing as error:
            raise UnknownReference("campaign") from error
        return {"advertiser_id": owner, "campaign_id": body.campaign, "creative_id": body.creative}
