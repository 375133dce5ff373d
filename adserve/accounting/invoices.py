"""What an invoice says, and how its money is written. Rounding happened where its lines were made: here all is exact."""

from datetime import date, datetime
from enum import StrEnum
from typing import Annotated, Literal

from msgspec import Meta, Struct

MICRO_DIGITS = 6


class Status(StrEnum):
    DRAFT = "draft"
    ISSUED = "issued"
    PAID = "paid"
    VOID = "void"


class Seller(Struct, frozen=True, forbid_unknown_fields=True):
    """Who issues invoices. Numbers are counted by `series` and year; `payment` says how to pay."""

    name: str = "adserve"
    address: tuple[str, ...] = ()
    tax_id: str = ""
    payment: str = ""
    series: Annotated[str, Meta(pattern="^[A-Z0-9]{1,12}$")] = "INV"


class Line(Struct, frozen=True, kw_only=True):
    """A campaign's day. `corrects` is the id of an earlier invoice of that day, and its number."""

    line: int
    campaign_id: int
    campaign: str
    day: date
    unit: Literal["impression", "view", "click"]
    corrects: int | None
    corrects_number: str | None
    quantity: int
    invalid: int
    gross_micros: int
    invalid_micros: int
    credits_micros: int
    net_micros: int
    total_micros: int

    @property
    def note(self) -> Literal["debit", "credit"] | None:
        if self.corrects is None:
            return None
        return "debit" if self.net_micros > 0 else "credit"


class Invoice(Struct, frozen=True, kw_only=True):
    """`total_micros` is the sum of the lines' rounded nets; `due_micros` what of it is to be paid still. A draft has no
    number and no seller, and its due is not known."""

    id: int
    advertiser_id: int
    currency: str
    month: date
    time_zone: str
    exponent: int
    status: Status
    number: str | None
    buyer: str
    seller: Seller | None
    gross_micros: int
    invalid_micros: int
    credits_micros: int
    net_micros: int
    total_micros: int
    due_micros: int | None
    drafted_at: datetime
    issued_at: datetime | None
    paid_at: datetime | None
    voided_at: datetime | None


def amount_text(micros: int, exponent: int, *, grouped: bool = True) -> str:
    """Exactly, with the currency's decimal places, and more where they are needed: 1,234.50, 0.0025."""
    whole, fraction = divmod(abs(micros), 10**MICRO_DIGITS)
    digits = f"{fraction:0{MICRO_DIGITS}d}"
    digits = digits[:exponent] + digits[exponent:].rstrip("0")
    sign = "-" if micros < 0 else ""
    return f"{sign}{whole:{',' if grouped else ''}}{'.' if digits else ''}{digits}"
