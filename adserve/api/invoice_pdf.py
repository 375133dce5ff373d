"""Draws one invoice: JSON on standard input, a PDF on standard output. The same invoice gives the same bytes."""

import calendar
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from itertools import groupby
from typing import Any, NamedTuple

import msgspec
from fpdf import FPDF
from fpdf.enums import Align, MethodReturnValue, TextMode, XPos, YPos
from fpdf.fonts import TTFFont

from adserve.accounting.invoices import Invoice, Line, Seller, Status, amount_text

LINES_DRAWN_MAX = 600
"""With more, a row is a whole campaign; the days are in the JSON and the CSV."""

MARGIN = 16
INK, SOFT, RULE, SHADE, ALERT = (24, 28, 36), (104, 112, 124), (206, 211, 218), (244, 246, 248), (196, 60, 48)
SIZES = (8.5, 8.0, 7.5, 7.0, 6.5, 6.0, 5.5)
CAMPAIGN_WIDTH_MIN = 40.0
PADDING = 1.3

UNKNOWN = "\N{REPLACEMENT CHARACTER}"

_FONT = "NotoSans[wght].ttf"
_SCRIPTS = (
    "Arabic", "Armenian", "Bengali", "Devanagari", "Ethiopic", "Georgian", "Gujarati", "Gurmukhi", "Hebrew", "Kannada", "Khmer",
    "Lao", "Malayalam", "Myanmar", "Oriya", "Sinhala", "Tamil", "Telugu", "Thai",
)  # fmt: skip  # laid out as rows
_CJK = frozenset(
    {"CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO", "FULLWIDTH", "HALFWIDTH", "IDEOGRAPHIC"}
)

_HEADINGS = ("Day", "Campaign", "Quantity", "Gross", "Invalid", "Credits", "Amount")


class Row(NamedTuple):
    day: str
    campaign: str
    figures: tuple[str, ...]


class Sheet(FPDF):
    def __init__(self, invoice: Invoice, seller: Seller) -> None:
        super().__init__(format="A4")
        self.shaped = False
        """Whether a script of the names needs it; figures never do, and it takes a hundred times as long."""
        self._named = f"{seller.name}   ·   {invoice.number or 'Draft'}"
        self._mark = {Status.DRAFT: "DRAFT", Status.VOID: "VOID"}.get(invoice.status)
        self.set_creation_date(invoice.issued_at or invoice.drafted_at)
        self.set_title(f"Invoice {invoice.number or 'draft'}")
        self.set_author(seller.name)
        self.set_margin(MARGIN)
        self.set_auto_page_break(True, MARGIN + 6)
        self.set_draw_color(*RULE)
        self.alias_nb_pages()

    def header(self) -> None:
        if self._mark is None:
            return
        with self.rotation(52, self.w / 2, self.h / 2), self.local_context(text_color=(238, 226, 224)):
            self.set_font_size(120)
            self.text((self.w - self.get_string_width(self._mark)) / 2, self.h / 2 + 20, self._mark)
        self.set_y(MARGIN)

    def footer(self) -> None:
        self.set_y(-MARGIN)
        self.set_font_size(7.5)
        self.set_text_color(*SOFT)
        self.cell(0, 5, self._named, align=Align.L)
        self.set_x(MARGIN)
        self.cell(0, 5, f"Page {self.page_no()} of {{nb}}", align=Align.R)

    def legible(self, text: str) -> str:
        """On one line, without what controls a printer; a letter that no font has leaves its mark, not nothing."""
        line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
        return "".join(
            letter if self._has(letter) else UNKNOWN
            for letter in line
            if self._has(letter) or not _joins(letter)
        )

    def _has(self, letter: str) -> bool:
        return any(isinstance(font, TTFFont) and ord(letter) in font.cmap for font in self.fonts.values())

    @contextmanager
    def unshaped(self) -> Iterator[None]:
        self.set_text_shaping(False)
        yield
        self.set_text_shaping(self.shaped)

    @contextmanager
    def strong(self, width: float = 0.18) -> Iterator[None]:
        """The font has no bold of its own."""
        with self.local_context(text_mode=TextMode.FILL_STROKE, line_width=width, draw_color=self.text_color):
            yield

    def line_of(
        self,
        text: str,
        size: float,
        color: tuple[int, int, int] = INK,
        width: float = 0,
        align: Align = Align.L,
    ) -> None:
        self.set_font_size(size)
        self.set_text_color(*color)
        self.multi_cell(width, size * 0.5, text, align=align, new_x=XPos.LEFT, new_y=YPos.NEXT)


def _joins(letter: str) -> bool:
    """Whether it only changes the letter before it."""
    return unicodedata.category(letter).startswith("M")


def draw(invoice: Invoice, lines: Sequence[Line]) -> bytes:
    seller = invoice.seller or Seller()
    sheet = Sheet(invoice, seller)
    _add_fonts(
        sheet,
        [
            seller.name,
            *seller.address,
            seller.tax_id,
            seller.payment,
            invoice.buyer,
            *(line.campaign for line in lines),
        ],
    )
    sheet.add_page()
    _head(sheet, invoice, seller)
    _table(sheet, invoice, _rows(sheet, invoice, lines))
    _sums(sheet, invoice)
    if seller.payment and invoice.due_micros:
        sheet.set_xy(MARGIN, sheet.get_y() + 6)
        sheet.line_of("Payment", 8, SOFT)
        sheet.line_of(sheet.legible(seller.payment), 9)
    return bytes(sheet.output())


def _add_fonts(sheet: Sheet, texts: Iterable[str]) -> None:
    """Those of the scripts that the texts are written in."""
    named = {
        unicodedata.name(letter, "").split(" ")[0].split("-")[0] for text in texts for letter in set(text)
    }
    folder = files("manimgx_fonts")
    sheet.add_font("main", fname=str(folder / _FONT))
    others = [script for script in _SCRIPTS if script.upper() in named]
    for script in others:
        sheet.add_font(script, fname=str(folder / f"NotoSans{script}[wght].ttf"))
    sheet.shaped = bool(others)
    sheet.set_text_shaping(sheet.shaped)
    if not named.isdisjoint(_CJK):
        others.append("CJK")
        sheet.add_font("CJK", fname=str(files("noto_cjk_sans_jp_regular") / "NotoSansCJKjp-Regular.otf"))
    sheet.set_fallback_fonts(others, exact_match=False)
    sheet.set_font("main")


def _head(sheet: Sheet, invoice: Invoice, seller: Seller) -> None:
    half = sheet.epw / 2
    with sheet.strong(0.3):
        sheet.line_of(sheet.legible(seller.name), 17, width=half)
    for text in (*seller.address, seller.tax_id and f"Tax ID {seller.tax_id}"):
        if text:
            sheet.line_of(sheet.legible(text), 8.5, SOFT, half)
    left_end = sheet.get_y()
    sheet.set_xy(MARGIN + half, MARGIN)
    with sheet.strong(0.3):
        sheet.line_of("INVOICE", 17, width=half, align=Align.R)
    sheet.line_of(invoice.number or "Draft, without a number", 10, width=half, align=Align.R)
    if invoice.status in (Status.PAID, Status.VOID):
        sheet.line_of(
            invoice.status.upper(), 9, ALERT if invoice.status is Status.VOID else SOFT, half, Align.R
        )
    sheet.set_xy(MARGIN, max(left_end, sheet.get_y()) + 7)
    sheet.line(MARGIN, sheet.get_y() - 3, sheet.w - MARGIN, sheet.get_y() - 3)

    top = sheet.get_y()
    sheet.line_of("Bill to", 8, SOFT, half)
    with sheet.strong():
        sheet.line_of(sheet.legible(invoice.buyer), 11, width=half - 6)
    sheet.line_of(f"Advertiser {invoice.advertiser_id}", 8.5, SOFT, half)
    bottom = sheet.get_y()
    last = calendar.monthrange(invoice.month.year, invoice.month.month)[1]
    facts = (
        ("Issued", f"{invoice.issued_at:%d %B %Y}" if invoice.issued_at else "not yet"),
        ("Period", f"1 to {last} {invoice.month:%B %Y}"),
        ("Days of", invoice.time_zone),
        ("Currency", invoice.currency),
    )
    sheet.set_y(top)
    for name, value in facts:
        sheet.set_x(MARGIN + half)
        sheet.set_font_size(8.5)
        sheet.set_text_color(*SOFT)
        sheet.cell(24, 5, name)
        sheet.set_text_color(*INK)
        sheet.cell(0, 5, value, align=Align.R, new_x=XPos.LMARGIN, new_y=YPos.NEXT)
    sheet.set_y(max(bottom, sheet.get_y()) + 6)


def _rows(sheet: Sheet, invoice: Invoice, lines: Sequence[Line]) -> list[Row]:
    if len(lines) <= LINES_DRAWN_MAX:
        return [Row(line.day.isoformat(), _named(sheet, line), _figures(invoice, [line])) for line in lines]
    by_campaign = sorted(lines, key=lambda line: (line.campaign_id, line.day, line.line))
    groups = (list(group) for _, group in groupby(by_campaign, key=lambda line: line.campaign_id))
    return [
        Row(
            f"{len({line.day for line in of_one})} days",
            sheet.legible(of_one[0].campaign),
            _figures(invoice, of_one),
        )
        for of_one in groups
    ]


def _named(sheet: Sheet, line: Line) -> str:
    note = f" ({line.note} note to {line.corrects_number})" if line.note else ""
    return sheet.legible(line.campaign) + note


def _figures(invoice: Invoice, lines: Sequence[Line]) -> tuple[str, ...]:
    def amount(micros: Iterable[int]) -> str:
        return amount_text(sum(micros), invoice.exponent)

    return (
        f"{sum(line.quantity for line in lines):,} {lines[0].unit}s",
        amount(line.gross_micros for line in lines),
        amount(-line.invalid_micros for line in lines),
        amount(-line.credits_micros for line in lines),
        amount(line.total_micros for line in lines),
    )


def _table(sheet: Sheet, invoice: Invoice, rows: Sequence[Row]) -> None:
    cells = [(row.day, row.campaign, *row.figures) for row in rows]
    widths: list[float] = []
    for size in SIZES:
        sheet.set_font_size(size)
        with sheet.unshaped():
            fitted = [
                max(map(sheet.get_string_width, column)) + 2 * PADDING + 1.2
                for nth, column in enumerate(zip(_HEADINGS, *cells, strict=True))
                if nth != 1
            ]
        campaign = sheet.epw - sum(fitted)
        widths = [*fitted[:1], max(campaign, CAMPAIGN_WIDTH_MIN), *fitted[1:]]
        if campaign >= CAMPAIGN_WIDTH_MIN:
            break
    sheet.set_text_color(*INK)
    _headings(sheet, widths)
    names = {name: _broken(sheet, widths[1], name) for name in dict.fromkeys(row.campaign for row in rows)}
    for texts in cells:
        _row(sheet, widths, texts, names[texts[1]])


def _headings(sheet: Sheet, widths: Sequence[float]) -> None:
    with sheet.local_context(text_color=SOFT, fill_color=SHADE):
        sheet.rect(MARGIN, sheet.get_y(), sheet.epw, sheet.font_size * 1.35 + 2 * PADDING, style="F")
        _row(sheet, widths, _HEADINGS, _HEADINGS[1:2])


def _broken(sheet: Sheet, width: float, name: str) -> Sequence[str]:
    """Into lines. Once for all rows of a campaign: to measure some scripts takes long."""
    if sheet.get_string_width(name) <= width - 2 * PADDING:
        return [name]
    lines: Any = sheet.multi_cell(width, dry_run=True, text=name, output=MethodReturnValue.LINES)
    return list(lines)


def _row(sheet: Sheet, widths: Sequence[float], texts: Sequence[str], name: Sequence[str]) -> None:
    step = sheet.font_size * 1.35
    height = step * len(name) + 2 * PADDING
    if sheet.will_page_break(height):
        sheet.add_page()
        _headings(sheet, widths)
    top, left = sheet.get_y(), float(MARGIN)
    for column, (text, width) in enumerate(zip(texts, widths, strict=True)):
        if column == 1:
            for nth, part in enumerate(name):
                sheet.set_xy(left, top + PADDING + nth * step)
                sheet.cell(width, step, part, align=Align.L)
        else:
            sheet.set_xy(left, top + PADDING)
            with sheet.unshaped():
                sheet.cell(width, step, text, align=Align.L if column == 0 else Align.R)
        left += width
    sheet.set_xy(MARGIN, top + height)
    sheet.line(MARGIN, top + height, MARGIN + sheet.epw, top + height)


def _sums(sheet: Sheet, invoice: Invoice) -> None:
    def amount(micros: int) -> str:
        return amount_text(micros, invoice.exponent)

    rounding = invoice.total_micros - invoice.net_micros
    due = invoice.due_micros
    entries = [
        ("Gross", amount(invoice.gross_micros), False),
        ("Invalid traffic", amount(-invoice.invalid_micros), False),
        ("Credits", amount(-invoice.credits_micros), False),
        ("Rounding of lines", amount(rounding), False),
        (f"Total {invoice.currency}", amount(invoice.total_micros), True),
    ]
    if due is not None:
        entries.append(("Prepaid, promotional or credited", amount(due - invoice.total_micros), False))
        entries.append((f"Amount due {invoice.currency}", amount(due), True))
    width = 92
    if sheet.will_page_break(len(entries) * 6 + 6):
        sheet.add_page()
    sheet.set_y(sheet.get_y() + 5)
    for name, value, strong in entries:
        sheet.set_x(sheet.w - MARGIN - width)
        sheet.set_font_size(9.5 if strong else 8.5)
        sheet.set_text_color(*(INK if strong else SOFT))
        if strong:
            sheet.line(sheet.get_x(), sheet.get_y(), sheet.w - MARGIN, sheet.get_y())
            with sheet.strong():
                _entry(sheet, width, name, value)
        else:
            _entry(sheet, width, name, value)


def _entry(sheet: Sheet, width: float, name: str, value: str) -> None:
    sheet.cell(width * 0.55, 6, name)
    sheet.cell(width * 0.45, 6, value, align=Align.R, new_x=XPos.LMARGIN, new_y=YPos.NEXT)


def main() -> None:
    invoice, lines = msgspec.json.decode(sys.stdin.buffer.read(), type=tuple[Invoice, list[Line]])
    sys.stdout.buffer.write(draw(invoice, lines))


if __name__ == "__main__":
    main()
