"""What advertisers and operators set up: advertisers, campaigns, creatives, ads. Four tables, one way to work them."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from adserve.domain.ids import AdvertiserId
from adserve.store.desk import Connection
from adserve.store.errors import Missing, Outdated
from adserve.store.statements import load

Row = Mapping[str, Any]

SQL = load("campaigns")


class Table:
    """One kind of thing. `columns` are those that its statements write, in the order of their parameters."""

    def __init__(self, subject: str, columns: tuple[str, ...], filters: tuple[str, ...] = ()) -> None:
        self._SQL = load(subject)
        self._subject = subject
        self._columns = columns
        self._filters = filters

    async def create(self, connection: Connection, values: Row) -> Row:
        row: Row = await connection.fetchrow(self._SQL.create, *self._parameters(values))
        return row

    async def one(self, connection: Connection, id_: int) -> Row:
        return self._found(await connection.fetchrow(self._SQL.one, id_), id_)

    async def page(self, connection: Connection, after: int, limit: int, filters: Row) -> list[Row]:
        """By id, beyond `after`; a filter that is None lets everything through."""
        chosen = [filters[name] for name in self._filters]
        rows: list[Row] = await connection.fetch(self._SQL.page, after, limit, *chosen)
        return rows

    async def lock(self, connection: Connection, id_: int) -> Row:
        """The thing as it stands until this transaction ends."""
        return self._found(await connection.fetchrow(self._SQL.lock, id_), id_)

    async def change(self, connection: Connection, id_: int, version: int, values: Row) -> Row:
        row: Row | None = await connection.fetchrow(self._SQL.change, id_, version, *self._parameters(values))
        if row is None:
            raise Outdated(f"{self._subject} {id_} is no longer at version {version}")
        return row

    async def set_status(self, connection: Connection, id_: int, status: str) -> Row:
        return self._found(await connection.fetchrow(self._SQL.set_status, id_, status), id_)

    def _parameters(self, values: Row) -> list[Any]:
        return [values[name] for name in self._columns]

    def _found(self, row: Row | None, id_: int) -> Row:
        if row is None:
            raise Missing(f"{self._subject} has no {id_}")
        return row


ADVERTISERS = Table("advertisers", ("name", "time_zone"))
CAMPAIGNS = Table(
    "campaigns",
    (
        "advertiser_id",
        "status",
        "name",
        "objective",
        "starts_at",
        "ends_at",
        "time_zone",
        "bid_model",
        "bid_micros",
        "currency",
        "billable",
        "budget_daily_micros",
        "budget_total_micros",
        "pacing",
        "priority",
        "targeting",
        "caps",
        "separation",
    ),
    filters=("advertiser",),
)
CREATIVES = Table(
    "creatives",
    ("advertiser_id", "kind", "media", "headline", "body", "call_to_action", "landing_url"),
    filters=("advertiser",),
)
ADS = Table("ads", ("advertiser_id", "campaign_id", "creative_id"), filters=("advertiser", "campaign"))


async def has_delivered(connection: Connection, campaign: int) -> bool:
    """Whether money was ever set aside for the campaign: nothing is shown before. The campaign must be locked."""
    delivered: bool = await connection.fetchval(SQL.delivered, campaign)
    return delivered


class Used(NamedTuple):
    """What is spent or held of a campaign's budgets: of the days that are not over, the most, and of the whole."""

    daily_micros: int
    total_micros: int


async def used(connection: Connection, campaign: int, at: datetime) -> Used:
    """The campaign must be locked: then no more is taken meanwhile."""
    return Used(*await connection.fetchrow(SQL.used, campaign, at))


async def advertiser_of(connection: Connection, campaign: int) -> AdvertiserId:
    row = await CAMPAIGNS.one(connection, campaign)
    return AdvertiserId(row["advertiser_id"])
