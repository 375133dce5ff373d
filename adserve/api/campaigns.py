"""/v1/campaigns: what an advertiser wants shown to whom, when, how often and for how much."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from adserve.api.resource import Resource, owner_of
from adserve.api.shapes import (
    Id,
    Moment,
    Name,
    Price,
    Status,
    TimeZone,
    changes_of,
    check_moment,
    check_time_zone,
)
from adserve.domain.ads import Cap
from adserve.domain.ids import AdvertiserId
from adserve.domain.targeting import Exclusion, Targeting, Word, parse_version
from adserve.domain.time import Clock, from_ms
from adserve.store.desk import Connection, Desk
from adserve.store.setup import CAMPAIGNS, Row, has_delivered, used
from adserve.web.paging import PageQuery
from adserve.web.problems import CONFLICT, FieldError, Problem, invalid

CPM_STEP_MICROS = 1_000
"""A price for 1,000 impressions is a multiple of this, so that one impression costs whole micros."""

_BILLABLE = {"cpm": ("impression", "view"), "cpc": ("click",)}

_FIXED = {
    "currency": "$.bid.price.currency",
    "time_zone": "$.time_zone",
    "bid_model": "$.bid.model",
    "billable": "$.billable",
}
"""What can't change once money was set aside: what is counted and billed would change its meaning."""


class Bid(Struct, frozen=True, forbid_unknown_fields=True):
    """The most to pay: per 1,000 impressions or views (cpm), or per click (cpc)."""

    model: Literal["cpm", "cpc"]
    price: Price


class Budget(Struct, frozen=True, forbid_unknown_fields=True):
    """In the bid's currency. A day begins at midnight in the campaign's time zone."""

    daily: Price | None = None
    total: Price | None = None


class NewCampaign(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`advertiser` may be left out by an advertiser's own key. Without `ends_at` it runs until it is stopped."""

    advertiser: Id | None = None
    name: Name
    objective: Annotated[str, Meta(min_length=1, max_length=64)] = "awareness"
    starts_at: Moment
    ends_at: Moment | None = None
    time_zone: TimeZone = "UTC"
    bid: Bid
    billable: Literal["impression", "view", "click"]
    budget: Budget = Budget()
    pacing: Literal["even", "asap"] = "even"
    priority: Literal["guaranteed", "auction"] = "auction"
    targeting: Targeting = Targeting()
    caps: Annotated[tuple[Cap, ...], Meta(max_length=10)] = ()
    separation: Annotated[tuple[Word, ...], Meta(max_length=10)] = ()
    status: Literal["active", "paused"] = "active"


class Campaign(Struct, frozen=True, kw_only=True):
    id: int
    advertiser: int
    name: str
    objective: str
    starts_at: Moment
    ends_at: Moment | None
    time_zone: str
    bid: Bid
    billable: Literal["impression", "view", "click"]
    budget: Budget
    pacing: Literal["even", "asap"]
    priority: Literal["guaranteed", "auction"]
    targeting: Targeting
    caps: tuple[Cap, ...]
    separation: tuple[str, ...]
    status: Status
    created_at: Moment
    updated_at: Moment


class CampaignQuery(PageQuery, frozen=True, forbid_unknown_fields=True):
    advertiser: Id | None = None


EXAMPLE = {
    "advertiser": 3,
    "name": "Morning roast",
    "objective": "traffic",
    "starts_at": "2026-01-01T00:00:00Z",
    "ends_at": None,
    "time_zone": "Asia/Jakarta",
    "bid": {"model": "cpm", "price": {"micros": 14_000_000, "currency": "USD"}},
    "billable": "impression",
    "budget": {"daily": {"micros": 90_000_000, "currency": "USD"}},
    "pacing": "even",
    "targeting": {"countries": ["ID"], "languages": ["id"], "age": {"min": 18}},
    "caps": [{"scope": "campaign", "count": 2, "window_s": 3_600}],
    "separation": ["drinks"],
}


class Campaigns(Resource):
    table = CAMPAIGNS
    noun = "campaign"
    body = NewCampaign
    changes = changes_of("CampaignChanges", NewCampaign, but=frozenset({"advertiser", "status"}))
    answer = Campaign
    query = CampaignQuery
    example = EXAMPLE

    def __init__(self, desk: Desk, clock: Clock) -> None:
        super().__init__(desk)
        self._clock = clock

    def encode(self, row: Row) -> Campaign:
        return Campaign(
            id=row["id"],
            advertiser=row["advertiser_id"],
            bid=_bid_of(row),
            budget=_budget_of(row),
            targeting=msgspec.convert(row["targeting"], Targeting),
            caps=msgspec.convert(row["caps"], tuple[Cap, ...]),
            separation=tuple(row["separation"]),
            status=row["status"],
            created_at=row["created_at"],
            updated_at=row["updated_at"],
            **{name: row[name] for name in _PLAIN},
        )

    def body_of(self, row: Row) -> NewCampaign:
        campaign = self.encode(row)
        names = NewCampaign.__struct_fields__
        return NewCampaign(**{name: getattr(campaign, name) for name in names})

    async def columns(
        self, connection: Connection, tenant: AdvertiserId | None, body: NewCampaign, stored: Row | None
    ) -> Row:
        _check(body)
        price, budget = body.bid.price, body.budget
        columns = {
            "advertiser_id": owner_of(tenant, body.advertiser),
            "status": body.status,
            "bid_model": body.bid.model,
            "bid_micros": price.micros,
            "currency": price.currency,
            "budget_daily_micros": budget.daily and budget.daily.micros,
            "budget_total_micros": budget.total and budget.total.micros,
            "targeting": msgspec.to_builtins(body.targeting),
            "caps": msgspec.to_builtins(body.caps),
            "separation": body.separation,
            **{name: getattr(body, name) for name in _PLAIN},
        }
        if stored is not None:
            await _check_change(connection, stored, columns)
            await _check_budgets(connection, stored, columns, self._clock())
        return columns


_PLAIN = ("name", "objective", "starts_at", "ends_at", "time_zone", "billable", "pacing", "priority")


def _bid_of(row: Row) -> Bid:
    return Bid(row["bid_model"], Price(row["bid_micros"], row["currency"]))


def _budget_of(row: Row) -> Budget:
    def part(micros: int | None) -> Price | None:
        return None if micros is None else Price(micros, row["currency"])

    return Budget(part(row["budget_daily_micros"]), part(row["budget_total_micros"]))


def _check(body: NewCampaign) -> None:
    check_moment("$.starts_at", body.starts_at)
    if body.ends_at is not None:
        check_moment("$.ends_at", body.ends_at)
        if body.ends_at <= body.starts_at:
            raise invalid("$.ends_at", "is not after starts_at")
    check_time_zone("$.time_zone", body.time_zone)
    _check_money(body)
    _check_ranges("$.targeting", body.targeting)
    _check_ranges("$.targeting.exclude", body.targeting.exclude)


def _check_money(body: NewCampaign) -> None:
    bid = body.bid
    if bid.model == "cpm" and bid.price.micros % CPM_STEP_MICROS:
        raise invalid(
            "$.bid.price.micros", f"is not a multiple of {CPM_STEP_MICROS:,}, as a cpm price must be"
        )
    if body.billable not in _BILLABLE[bid.model]:
        raise invalid("$.billable", f"is not {' or '.join(_BILLABLE[bid.model])}, as {bid.model} needs")
    for name, part in (("daily", body.budget.daily), ("total", body.budget.total)):
        if part is not None and part.currency != bid.price.currency:
            raise invalid(f"$.budget.{name}.currency", f"is not {bid.price.currency}, the bid's")


def _check_ranges(field: str, part: Exclusion) -> None:
    age: Any = part.age
    if age is not None and None not in (age.min, age.max) and age.min > age.max:
        raise invalid(f"{field}.age", "has a min above its max")
    version = part.app_version
    if version is not None and version.min and version.max and _number(version.min) > _number(version.max):
        raise invalid(f"{field}.app_version", "has a min above its max")


def _number(version: str) -> int:
    return parse_version(version) or 0


async def _check_change(connection: Connection, stored: Row, columns: Row) -> None:
    changed = [field for column, field in _FIXED.items() if columns[column] != stored[column]]
    if changed and await has_delivered(connection, stored["id"]):
        reason = "cannot change after the first delivery"
        raise Problem(
            CONFLICT, f"{', '.join(changed)}: {reason}.", [FieldError(of, reason) for of in changed]
        )


async def _check_budgets(connection: Connection, stored: Row, columns: Row, now_ms: int) -> None:
    taken = await used(connection, stored["id"], from_ms(now_ms))
    errors = []
    for name, least in (("daily", taken.daily_micros), ("total", taken.total_micros)):
        before, after = (row[f"budget_{name}_micros"] for row in (stored, columns))
        lowered = after is not None and (before is None or after < before)
        if lowered and after < least:
            reason = f"is less than the {least:,} that are spent or held"
            errors.append(FieldError(f"$.budget.{name}.micros", reason))
    if errors:
        raise Problem(CONFLICT, "; ".join(f"{error.field} {error.reason}" for error in errors), errors)
