"""What is drawn of invoices, without a process of its own."""

import re
import zlib
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from fpdf.fonts import TTFFont
from msgspec.structs import replace

from adserve.accounting.invoices import Invoice, Line, Seller, Status
from adserve.api.invoice_pdf import LINES_DRAWN_MAX, UNKNOWN, draw

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


def texts(pdf: bytes) -> list[str]:
    """What is written in it, piece by piece; its font says what letters the glyphs are."""
    letters = {
        int(glyph, 16): chr(int(letter, 16)) for glyph, letter in re.findall(rb"<(\w{4})> <(\w{4})>\n", pdf)
    }
    packed = re.findall(rb"/FlateDecode\n/Length \d+\n>>\nstream\n(.*?)\nendstream", pdf, re.DOTALL)
    written = re.findall(rb"\(((?:\\.|[^\\)])*)\) Tj", b"".join(map(zlib.decompress, packed)), re.DOTALL)
    pieces = [
        re.sub(rb"\\(.)", lambda it: {b"r": b"\r"}.get(it[1], it[1]), one, flags=re.DOTALL) for one in written
    ]
    return ["".join(letters[ord(glyph)] for glyph in piece.decode("utf-16-be")) for piece in pieces]


def test_whose_invoice_it_is_and_every_amount_are_drawn() -> None:
    (line,) = lines(1)
    of_line = {"gross_micros": 2_000_010_000, "invalid_micros": 300_000_000, "credits_micros": 40_000_000,
               "total_micros": 1_660_010_000}  # fmt: skip  # laid out as rows
    of_invoice = {"gross_micros": 6_123_456_789, "invalid_micros": 500_000_000, "credits_micros": 70_000_000,
                  "net_micros": 5_553_456_789, "total_micros": 5_553_460_000, "due_micros": 1_250_000_000}  # fmt: skip  # laid out as rows
    drawn = texts(draw(invoice(**of_invoice), [replace(line, **of_line)]))
    assert {"Status Ads Ltd", "INV-2026-000042", "Kopi Rana", "1 to 31 January 2026", "IBAN IE29"} <= set(
        drawn
    )
    row = drawn.index("2026-01-01")
    assert drawn[row : row + 7] == [
        "2026-01-01", "Morning roast", "1,000,000,000,000 clicks", "2,000.01", "-300.00", "-40.00", "1,660.01"
    ]  # fmt: skip  # laid out as rows
    sums = dict(pairwise(drawn))
    assert {name: sums[name] for name in (
        "Gross", "Invalid traffic", "Credits", "Rounding of lines", "Total USD", "Prepaid, promotional or credited",
        "Amount due USD",
    )} == {
        "Gross": "6,123.456789", "Invalid traffic": "-500.00", "Credits": "-70.00", "Rounding of lines": "0.003211",
        "Total USD": "5,553.46", "Prepaid, promotional or credited": "-4,303.46", "Amount due USD": "1,250.00",
    }  # fmt: skip  # laid out as rows


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


def test_neither_figures_nor_a_name_that_comes_again_are_shaped_in_vain(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Or an invoice of a month of Arabic campaigns takes longer than anybody waits."""
    shaped: list[str] = []
    shape = TTFFont.shape_text

    def counted(font: TTFFont, text: str, *rest: Any) -> Any:
        shaped.append(text)
        return shape(font, text, *rest)

    monkeypatch.setattr(TTFFont, "shape_text", counted)
    draw(invoice(), lines(300, "شركة القهوة"))
    assert len([text for text in shaped if "9,000" in text]) == 3  # gross, total and due
    assert len(shaped) < 300 * 4  # what is drawn of a row is three


def test_a_letter_that_no_font_has_is_not_passed_over() -> None:
    drawn = "".join(texts(draw(invoice(), lines(1, "\N{HOT BEVERAGE}\N{VARIATION SELECTOR-16} Kopi"))))
    assert f"{UNKNOWN} Kopi" in drawn
