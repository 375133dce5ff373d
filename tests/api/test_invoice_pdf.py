"""What is drawn of invoices, without a process of its own."""

import re
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from adserve.accounting.invoices import Invoice, Line, Seller, Status
from adserve.api.invoice_pdf import LINES_DRAWN_MAX, draw

AT = datetime(2026, 2, 3, tzinfo=UTC)
SELLER = Seller("Status Ads Ltd", ("1 Feed Street",), "IE1234567X", "IBAN IE29")
NAMES = (
    "Kopi Rana", "深圳市咖啡有限公司", "شركة القهوة 2026", "विज्ञापन कंपनी", "x" * 200, "a\tb\r\n\x1b[31mc\u202e", "☕😀",
    "word " * 40, " ",
)  # fmt: skip  # laid out as rows


def lines(count: int, name: str = "Morning roast") -> list[Line]:
    return [
        Line(
            line=nth + 1,
            campaign_id=nth % 3,
            campaign=name,
            day=date(2026, 1, 1) + timedelta(days=nth // 30),
            unit="click",
            corrects=None,
            corrects_number=None,
            quantity=10**12,
            invalid=1,
            gross_micros=9 * 10**15 + 1,
            invalid_micros=1,
            credits_micros=0,
            net_micros=9 * 10**15,
            total_micros=9 * 10**15,
        )
        for nth in range(count)
    ]


def invoice(**facts: Any) -> Invoice:
    known: dict[str, Any] = {
        "id": 4,
        "advertiser_id": 3,
        "currency": "USD",
        "month": date(2026, 1, 1),
        "time_zone": "Asia/Jakarta",
        "exponent": 2,
        "status": Status.ISSUED,
        "number": "INV-2026-000042",
        "buyer": "Kopi Rana",
        "seller": SELLER,
        "gross_micros": 9 * 10**15 + 1,
        "invalid_micros": 1,
        "credits_micros": 0,
        "net_micros": 9 * 10**15,
        "total_micros": 9 * 10**15,
        "due_micros": 9 * 10**15,
        "drafted_at": AT,
        "issued_at": AT,
        "paid_at": None,
        "voided_at": None,
    }
    return Invoice(**known | facts)


def pages(pdf: bytes) -> int:
    return len(re.findall(rb"/Type /Page\b", pdf))


@pytest.mark.parametrize(("count", "expected"), [(1, 1), (60, 2), (LINES_DRAWN_MAX + 1, 1)])
def test_lines_go_over_pages_and_too_many_become_campaigns(count: int, expected: int) -> None:
    pdf = draw(invoice(), lines(count))
    assert pages(pdf) == expected
    assert pdf == draw(invoice(), lines(count))


@pytest.mark.parametrize("name", NAMES)
def test_any_name_can_be_drawn(name: str) -> None:
    assert pages(draw(invoice(buyer=name), lines(2, name))) == 1


@pytest.mark.parametrize(
    "facts",
    [
        {"status": Status.DRAFT, "number": None, "seller": None, "issued_at": None, "due_micros": None},
        {"status": Status.VOID, "voided_at": AT},
        {"status": Status.PAID, "paid_at": AT},
        {"exponent": 0, "currency": "JPY", "total_micros": -(10**9), "net_micros": -(10**9), "due_micros": 0},
    ],
)
def test_every_state_can_be_drawn(facts: dict[str, Any]) -> None:
    assert pages(draw(invoice(**facts), lines(1))) == 1
