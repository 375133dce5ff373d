"""/v1/advertisers: tenants, their deposits and balances."""

from functools import partial
from typing import Annotated

from aiohttp import web
from msgspec import Meta, Struct

from adserve.api.resource import OPERATORS, OWNERS, Resource
from adserve.api.shapes import (
    Currency,
    Moment,
    Money,
    Name,
    Price,
    Status,
    TimeZone,
    changes_of,
    check_time_zone,
)
from adserve.domain.ids import AdvertiserId
from adserve.domain.time import Clock
from adserve.store import ledger
from adserve.store.desk import Connection, Desk
from adserve.store.idempotency import Answer
from adserve.store.setup import ADVERTISERS, Row
from adserve.web.idempotency import once
from adserve.web.operations import Call, NoQuery, Operation
from adserve.web.replies import answer_response, created, json_response


class NewAdvertiser(Struct, frozen=True, forbid_unknown_fields=True):
    name: Name
    time_zone: TimeZone = "UTC"


class Advertiser(Struct, frozen=True):
    id: int
    name: str
    time_zone: str
    status: Status
    created_at: Moment
    updated_at: Moment


class NewDeposit(Struct, frozen=True, forbid_unknown_fields=True):
    """Money that has come in. `reference` is the operator's own, such as a bank's."""

    amount: Price
    reference: Annotated[str, Meta(max_length=200)] = ""


class Deposit(Struct, frozen=True):
    transaction: int
    amount: Money
    reference: str


class Balance(Struct, frozen=True):
    """`available` may still be leased to campaigns, `held` is leased and not yet spent or given back."""

    currency: Currency
    available: Money
    held: Money
    spent: Money


class Balances(Struct, frozen=True):
    advertiser: int
    balances: list[Balance]


class Advertisers(Resource):
    table = ADVERTISERS
    noun = "advertiser"
    body = NewAdvertiser
    changes = changes_of("AdvertiserChanges", NewAdvertiser)
    answer = Advertiser
    example = {"name": "Kopi Rana", "time_zone": "Asia/Jakarta"}  # noqa: RUF012 - the base declares it a ClassVar
    creators = OPERATORS

    def __init__(self, desk: Desk, clock: Clock) -> None:
        super().__init__(desk)
        self._clock = clock

    def encode(self, row: Row) -> Advertiser:
        return Advertiser(**{name: row[name] for name in Advertiser.__struct_fields__})

    def body_of(self, row: Row) -> NewAdvertiser:
        return NewAdvertiser(row["name"], row["time_zone"])

    async def columns(
        self, _connection: Connection, _tenant: AdvertiserId | None, body: NewAdvertiser, _stored: Row | None
    ) -> Row:
        check_time_zone("$.time_zone", body.time_zone)
        return {"name": body.name, "time_zone": body.time_zone}

    async def deposit(self, call: Call[NewDeposit, NoQuery]) -> web.StreamResponse:
        async with self.desk.transaction(None) as connection:
            answer = await once(connection, call, partial(self._deposit, connection, call))
        return answer_response(answer)

    async def _deposit(self, connection: Connection, call: Call[NewDeposit, NoQuery]) -> Answer:
        await self.table.one(connection, call.id)
        amount, reference = call.body.amount, call.body.reference
        advertiser = AdvertiserId(call.id)
        transaction = await ledger.deposit(
            connection, advertiser, amount.micros, amount.currency, reference, self._clock()
        )
        location = f"{self.path}/{advertiser}/balance"
        return created(Deposit(transaction, Money(amount.micros, amount.currency), reference), location)

    async def balance(self, call: Call[None, NoQuery]) -> web.StreamResponse:
        async with self.desk.transaction(call.caller.advertiser) as connection:
            await self.table.one(connection, call.id)
            rows = await ledger.balances(connection, AdvertiserId(call.id))
        return json_response(Balances(call.id, list(map(_encode_balance, rows))))

    def operations(self) -> list[Operation]:
        return [
            *super().operations(),
            Operation(
                method="POST",
                path="/v1/advertisers/{id}/deposits",
                id="deposit",
                summary="Book money that an advertiser has paid in",
                handle=self.deposit,
                scopes=OPERATORS,
                body=NewDeposit,
                answer=Deposit,
                statuses=(201,),
                idempotent=True,
                example={"amount": {"micros": 50_000_000, "currency": "USD"}, "reference": "2026-11/117"},
                tag="advertisers",
            ),
            Operation(
                method="GET",
                path="/v1/advertisers/{id}/balance",
                id="getBalance",
                summary="What an advertiser has paid in and not yet spent",
                handle=self.balance,
                scopes=OWNERS,
                answer=Balances,
                tag="advertisers",
            ),
        ]


def _encode_balance(balance: ledger.Balance) -> Balance:
    parts = (balance.available_micros, balance.held_micros, balance.spent_micros)
    return Balance(balance.currency, *(Money(micros, balance.currency) for micros in parts))
