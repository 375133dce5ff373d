"""/v1/invoices: what advertisers are asked to pay, as JSON, CSV or PDF."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import date
from decimal import Decimal
from functools import partial
from typing import Annotated, Any, Literal

from aiohttp import web
from msgspec import Meta, Struct

from adserve.access.keys import Scope
from adserve.accounting.invoices import Invoice, Line, Seller, Status, amount_text
from adserve.api.invoice_documents import PDF, Drawing
from adserve.api.shapes import Amount, Currency, Id, Moment
from adserve.domain.time import Clock
from adserve.store import invoices
from adserve.store.desk import Connection, Desk
from adserve.store.invoices import Filters
from adserve.web.operations import Call, NoQuery, Operation
from adserve.web.paging import PageQuery, cut, id_after
from adserve.web.problems import CONFLICT, Problem, invalid
from adserve.web.replies import JSON, Page, json_response
from adserve.web.tables import CSV, csv_lines, preferred

READERS = frozenset({Scope.ADVERTISER, Scope.ANALYST, Scope.OPERATOR})
OPERATORS = frozenset({Scope.OPERATOR})

_KINDS = {"json": JSON, "csv": CSV, "pdf": PDF}

Move = Callable[[Connection, int, int], Awaitable[Status]]
"""Moves an invoice on, at a moment, and answers the status that it had."""


class InvoiceQuery(PageQuery, frozen=True, forbid_unknown_fields=True):
    advertiser: Id | None = None
    currency: Currency | None = None
    status: Status | None = None
    month: Annotated[str, Meta(pattern="^[0-9]{4}-(0[1-9]|1[0-2])$", examples=["2026-11"])] | None = None


class FormatQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Where a caller cannot say it in `Accept`."""

    format: Literal["json", "csv", "pdf"] | None = None


class InvoiceShown(Struct, frozen=True, kw_only=True):
    """`gross` is what all billable events came to, `net` what is left of it without `invalid` traffic and `credits`; `total` is
    the sum of the lines' nets as rounded to the currency's unit. `due` is still to be paid; the rest was prepaid or given. It
    is null in a draft."""

    id: int
    number: str | None
    status: Status
    advertiser: int
    buyer: str
    seller: Seller | None
    month: str
    time_zone: str
    gross: Amount
    invalid: Amount
    credits: Amount
    net: Amount
    total: Amount
    due: Amount | None
    drafted_at: Moment
    issued_at: Moment | None
    paid_at: Moment | None
    voided_at: Moment | None


class Corrected(Struct, frozen=True):
    id: int
    number: str | None


class LineShown(Struct, frozen=True, kw_only=True):
    """A campaign's day in the invoice's time zone. `quantity` counts what was billable, `invalid_quantity` included. With
    `corrects`, the day stands on an earlier invoice: the line is a debit or a credit note to it."""

    line: int
    campaign: int
    name: str
    day: str
    unit: Literal["impression", "view", "click"]
    note: Literal["debit", "credit"] | None
    corrects: Corrected | None
    quantity: int
    invalid_quantity: int
    gross: Amount
    invalid: Amount
    credits: Amount
    net: Amount
    total: Amount


class WholeInvoice(InvoiceShown, frozen=True, kw_only=True):
    lines: list[LineShown]


class Invoices:
    def __init__(self, desk: Desk, clock: Clock, seller: Seller) -> None:
        self._desk = desk
        self._clock = clock
        self._seller = seller
        self._drawing = Drawing()

    async def page(self, call: Call[None, InvoiceQuery]) -> web.StreamResponse:
        query = call.query
        filters = Filters(query.advertiser, query.currency, query.status, _month(query.month))
        async with self._desk.transaction(call.caller.advertiser) as connection:
            found = await invoices.page(connection, id_after(query), query.limit + 1, filters)
        shown, following = cut(found, query.limit, lambda invoice: (invoice.id,))
        return json_response(Page([InvoiceShown(**_encode(invoice)) for invoice in shown], following))

    async def get(self, call: Call[None, FormatQuery]) -> web.StreamResponse:
        async with self._desk.transaction(call.caller.advertiser) as connection:
            invoice, lines = await _whole(connection, call.id)
        wanted = call.query.format
        accept = call.request.headers.get("Accept", "")
        kind = _KINDS[wanted] if wanted else preferred(accept, tuple(_KINDS.values()))
        if kind == CSV:
            return _file(_csv(invoice, lines), CSV, invoice)
        if kind == PDF:
            return _file(await self._drawing.draw(invoice, lines), PDF, invoice)
        return json_response(_encode_whole(invoice, lines))

    async def move(
        self, move: Move, before: Status, after: Status, call: Call[None, NoQuery]
    ) -> web.StreamResponse:
        async with self._desk.transaction(None) as connection:
            found = await move(connection, call.id, self._clock())
            if found not in (before, after):
                raise Problem(CONFLICT, f"It is {found}: only what is {before} can become {after}.")
            invoice, lines = await _whole(connection, call.id)
        return json_response(_encode_whole(invoice, lines))

    async def _issue(self, connection: Connection, id_: int, at_ms: int) -> Status:
        return await invoices.issue(connection, id_, self._seller, at_ms)

    def operations(self) -> list[Operation]:
        moves: tuple[tuple[str, Move, Status, Status, str], ...] = (
            ("issue", self._issue, Status.DRAFT, Status.ISSUED, "Give a draft its number"),
            ("void", invoices.void, Status.ISSUED, Status.VOID, "Take an invoice back; it is drafted anew"),
            ("paid", invoices.pay, Status.ISSUED, Status.PAID, "Book what is due as paid"),
        )
        return [
            Operation(
                method="GET",
                path="/v1/invoices",
                id="listInvoices",
                tag="invoices",
                summary="The invoices, oldest first",
                handle=self.page,
                scopes=READERS,
                query=InvoiceQuery,
                answer=Page[InvoiceShown],
            ),
            Operation(
                method="GET",
                path="/v1/invoices/{id}",
                id="getInvoice",
                tag="invoices",
                summary="One invoice with its lines",
                description="As JSON, CSV or PDF by `Accept`, or by `format`.",
                handle=self.get,
                scopes=READERS,
                query=FormatQuery,
                answer=WholeInvoice,
                content_types=tuple(_KINDS.values()),
            ),
            *(
                Operation(
                    method="POST",
                    path=f"/v1/invoices/{{id}}/{verb}",
                    id=f"{verb}Invoice",
                    tag="invoices",
                    summary=summary,
                    handle=partial(self.move, move, before, after),
                    scopes=OPERATORS,
                    answer=WholeInvoice,
                    refusals=(409,),
                )
                for verb, move, before, after, summary in moves
            ),
        ]


async def _whole(connection: Connection, id_: int) -> tuple[Invoice, list[Line]]:
    return await invoices.one(connection, id_), await invoices.lines(connection, id_)


def _month(text: str | None) -> date | None:
    try:
        return None if text is None else date.fromisoformat(f"{text}-01")
    except ValueError as error:
        raise invalid("?month", "is not a month") from error


_AMOUNTS = ("gross", "invalid", "credits", "net", "total")
_ALIKE = (
    "id",
    "number",
    "status",
    "buyer",
    "seller",
    "time_zone",
    "drafted_at",
    "issued_at",
    "paid_at",
    "voided_at",
)


def _encode(invoice: Invoice) -> dict[str, Any]:
    due = invoice.due_micros
    return {
        "advertiser": invoice.advertiser_id,
        "month": f"{invoice.month:%Y-%m}",
        "due": None if due is None else Amount(due, invoice.currency),
        **{name: Amount(getattr(invoice, f"{name}_micros"), invoice.currency) for name in _AMOUNTS},
        **{name: getattr(invoice, name) for name in _ALIKE},
    }


def _encode_whole(invoice: Invoice, lines: Sequence[Line]) -> WholeInvoice:
    return WholeInvoice(lines=[_encode_line(line, invoice.currency) for line in lines], **_encode(invoice))


def _encode_line(line: Line, currency: str) -> LineShown:
    corrects = None if line.corrects is None else Corrected(line.corrects, line.corrects_number)
    amounts = {name: Amount(getattr(line, f"{name}_micros"), currency) for name in _AMOUNTS}
    return LineShown(
        line=line.line,
        campaign=line.campaign_id,
        name=line.campaign,
        day=line.day.isoformat(),
        unit=line.unit,
        note=line.note,
        corrects=corrects,
        quantity=line.quantity,
        invalid_quantity=line.invalid,
        **amounts,
    )


COLUMNS = (
    "invoice", "status", "line", "day", "campaign", "name", "note", "corrects", "unit", "quantity", "invalid_quantity",
    "currency", *(f"{name}_micros" for name in _AMOUNTS), "total",
)  # fmt: skip  # laid out as rows


def _csv(invoice: Invoice, lines: Sequence[Line]) -> bytes:
    return csv_lines([COLUMNS, *(_csv_line(invoice, line) for line in lines)])


def _csv_line(invoice: Invoice, line: Line) -> tuple[Any, ...]:
    return (
        invoice.number, invoice.status, line.line, line.day, line.campaign_id, line.campaign, line.note,
        line.corrects_number, line.unit, line.quantity, line.invalid, invoice.currency,
        *(getattr(line, f"{name}_micros") for name in _AMOUNTS),
        Decimal(amount_text(line.total_micros, invoice.exponent, grouped=False)),
    )  # fmt: skip  # laid out as rows


def _file(content: bytes, kind: str, invoice: Invoice) -> web.Response:
    name = f"{invoice.number or f'draft-{invoice.id}'}.{kind.rpartition('/')[2]}"
    headers = {"Content-Disposition": f'inline; filename="{name}"', "Cache-Control": "no-store"}
    charset = "utf-8" if kind == CSV else None
    return web.Response(body=content, content_type=kind, charset=charset, headers=headers)
