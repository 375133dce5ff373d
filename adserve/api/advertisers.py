"""/v1/advertisers: tenants, their deposits and balances."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Annotated

from aiohttp import web
from msgspec import Meta, Struct

from adserve.api.resource import OPERATORS, OWNERS, Resource
from adserve.api.shapes import (
    Amount,
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
from adserve.store import invoices, ledger
from adserve.store.desk import Connection, Desk
from adserve.store.idempotency import Answer
from adserve.store.setup import ADVERTISERS, Row
from adserve.web.idempotency import once
from adserve.web.operations import Call, NoQuery, Operation
from adserve.web.problems import CONFLICT, FieldError, Problem
from adserve.web.replies import answer_response, created, json_response

Book = Callable[[Connection, AdvertiserId, int, str, str, int], Awaitable[int]]
"""Moves an amount to an advertiser, as `ledger.deposit` does."""


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


class NewFunds(Struct, frozen=True, forbid_unknown_fields=True):
    """Money that has come in or is given. `reference` is the operator's own, such as a bank's."""

    amount: Price
    reference: Annotated[str, Meta(max_length=200)] = ""


class Funds(Struct, frozen=True):
    transaction: int
    amount: Money
    reference: str


class CreditLine(Struct, frozen=True, forbid_unknown_fields=True):
    """The most that an advertiser may owe; nothing beside it, or the answer of the call that set it."""

    amount: Money


class Balance(Struct, frozen=True):
    """What may still be leased to campaigns is `promotional` (first), `available`, and what of the `credit_line` is not yet
    `owed`; that includes what is held of it. `held` is leased and not yet spent or given back."""

    currency: Currency
    available: Money
    promotional: Money
    credit_line: Money
    owed: Amount
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
        self, connection: Connection, _tenant: AdvertiserId | None, body: NewAdvertiser, stored: Row | None
    ) -> Row:
        check_time_zone("$.time_zone", body.time_zone)
        if stored is not None and body.time_zone != stored["time_zone"]:
            await _check_days_are_free(connection, stored["id"])
        return {"name": body.name, "time_zone": body.time_zone}

    async def fund(self, book: Book, call: Call[NewFunds, NoQuery]) -> web.StreamResponse:
        async with self.desk.transaction(None) as connection:
            answer = await once(connection, call, partial(self._fund, book, connection, call))
        return answer_response(answer)

    async def _fund(self, book: Book, connection: Connection, call: Call[NewFunds, NoQuery]) -> Answer:
        await self.table.one(connection, call.id)
        amount, reference = call.body.amount, call.body.reference
        advertiser = AdvertiserId(call.id)
        transaction = await book(
            connection, advertiser, amount.micros, amount.currency, reference, self._clock()
        )
        location = f"{self.path}/{advertiser}/balance"
        return created(Funds(transaction, Money(amount.micros, amount.currency), reference), location)

    async def set_credit_line(self, call: Call[CreditLine, NoQuery]) -> web.StreamResponse:
        amount = call.body.amount
        async with self.desk.transaction(None) as connection:
            await self.table.one(connection, call.id)
            owed = await ledger.set_credit_line(
                connection, AdvertiserId(call.id), amount.micros, amount.currency, self._clock()
            )
        if owed is not None:
            wrong = FieldError("$.amount.micros", f"is less than the {owed:,} that are owed or held")
            raise Problem(CONFLICT, f"{wrong.field} {wrong.reason}", (wrong,))
        return json_response(call.body)

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
                handle=partial(self.fund, ledger.deposit),
                scopes=OPERATORS,
                body=NewFunds,
                answer=Funds,
                statuses=(201,),
                idempotent=True,
                example={"amount": {"micros": 50_000_000, "currency": "USD"}, "reference": "2026-11/117"},
                tag="advertisers",
            ),
            Operation(
                method="POST",
                path="/v1/advertisers/{id}/promotions",
                id="promote",
                summary="Give an advertiser promotional credit, which is spent before its own money",
                handle=partial(self.fund, ledger.promote),
                scopes=OPERATORS,
                body=NewFunds,
                answer=Funds,
                statuses=(201,),
                idempotent=True,
                example={"amount": {"micros": 10_000_000, "currency": "USD"}, "reference": "welcome"},
                tag="advertisers",
            ),
            Operation(
                method="PUT",
                path="/v1/advertisers/{id}/credit-line",
                id="setCreditLine",
                summary="Set how far an advertiser may spend beyond what it has prepaid",
                handle=self.set_credit_line,
                scopes=OPERATORS,
                body=CreditLine,
                answer=CreditLine,
                refusals=(409,),
                example={"amount": {"micros": 200_000_000, "currency": "USD"}},
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
    def money(micros: int) -> Money:
        return Money(micros, balance.currency)

    return Balance(
        currency=balance.currency,
        available=money(balance.available_micros),
        promotional=money(balance.promotional_micros),
        credit_line=money(balance.credit_line_micros),
        owed=Amount(balance.owed_micros, balance.currency),
        held=money(balance.held_micros),
        spent=money(balance.spent_micros),
    )


async def _check_days_are_free(connection: Connection, advertiser: AdvertiserId) -> None:
    if await invoices.has_any(connection, advertiser):
        wrong = FieldError("$.time_zone", "cannot change once there are invoices of its days")
        raise Problem(CONFLICT, f"{wrong.field} {wrong.reason}", (wrong,))
