"""Reads a log of impressions that another system wrote (CSV, one record a line) through a mapping (TOML).

A line that cannot be read is yielded as `Malformed` with its number; it never ends the reading.
"""

import csv
import tomllib
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated, BinaryIO, NamedTuple
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Meta, Struct

from adserve.domain.money import MICROS_MAX
from adserve.domain.slots import Context
from adserve.domain.time import to_ms

LINE_BYTES_MAX = 65_536
MAPPINGS = Path(__file__).parent / "mappings"


class LogRefused(ValueError):
    """The log cannot be opened, or its mapping is wrong or does not fit it; the message says which and why."""


class Columns(Struct, frozen=True, forbid_unknown_fields=True):
    """Names of columns. Without `viewer`, every record is a viewer of its own, named by its line."""

    time: str
    time_format: str
    campaign: str
    click: str
    viewer: str | None = None
    bid: str | None = None
    floor: str | None = None


class ContextColumns(Struct, frozen=True, forbid_unknown_fields=True):
    """Columns that hold what a request tells about the viewer; `interests` are separated by commas."""

    country: str | None = None
    language: str | None = None
    platform: str | None = None
    app_version: str | None = None
    age: str | None = None
    interests: str | None = None
    custom: dict[str, str] = {}


class CampaignDefaults(Struct, frozen=True, forbid_unknown_fields=True):
    """What a replay's campaigns have that the log does not say, in its unit of price; a budget of None is no limit."""

    bid: Annotated[int, Meta(ge=1)] = 1_000
    daily_budget: Annotated[int, Meta(ge=1)] | None = None
    total_budget: Annotated[int, Meta(ge=1)] | None = None


class LogMapping(Struct, frozen=True, forbid_unknown_fields=True):
    """How a log's columns are to be understood.

    `missing` are the ways in which the log writes "nothing here". `constants` hold for every record. Prices are
    in units of `price_unit_micros` per 1,000 impressions. With `campaign_matches`, the campaigns of a replay
    target their own key under that custom name, so that a record's request matches its own campaign alone. With
    `advertiser`, they all belong to one of that name.
    """

    columns: Columns
    context: ContextColumns = ContextColumns()
    constants: Context = Context()
    campaigns: CampaignDefaults = CampaignDefaults()
    time_zone: str = "UTC"
    currency: Annotated[str, Meta(pattern="^[A-Z]{3}$")] = "USD"
    price_unit_micros: Annotated[int, Meta(ge=1)] = 1_000
    missing: tuple[str, ...] = ("",)
    campaign_matches: str | None = None
    advertiser: str | None = None


class Row(NamedTuple):
    """One impression. Prices are micros per 1,000 impressions."""

    line: int
    at_ms: int
    viewer: str
    campaign: str
    clicked: bool
    context: Context
    bid_micros: int | None
    floor_micros: int | None


class Malformed(NamedTuple):
    line: int
    reason: str


def _unwatched(_line_bytes: int) -> None:
    """The progress of a reading that nobody watches."""


def load_mapping(path: Path) -> LogMapping:
    try:
        mapping = msgspec.convert(tomllib.loads(path.read_text("utf-8")), LogMapping)
        ZoneInfo(mapping.time_zone)
    except (OSError, ValueError, LookupError) as error:
        raise LogRefused(f"mapping {path}: {error}") from error
    return mapping


def read(
    path: Path, mapping: LogMapping, progress: Callable[[int], object] = _unwatched
) -> Iterator[Row | Malformed]:
    """The records in the order of the file; `progress` is told how many bytes each line took."""
    try:
        with path.open("rb") as file:
            lines = _lines(file, progress)
            number, head = next(lines, (0, b""))
            names = _fields(head)
            if isinstance(names, str) or len(set(names)) < len(names):
                raise LogRefused(f"log {path}: line {number} should name the columns, each once")
            record = _Record(mapping, names, path)
            for number, line in lines:
                if line is None or line.strip():
                    yield record.parse(number, line)
    except OSError as error:
        raise LogRefused(f"log {path}: {error.strerror}") from error


def _lines(file: BinaryIO, progress: Callable[[int], object]) -> Iterator[tuple[int, bytes | None]]:
    """Numbered lines; None for one longer than LINE_BYTES_MAX, which is passed over in pieces."""
    number = 0
    while line := file.readline(LINE_BYTES_MAX):
        number += 1
        progress(len(line))
        whole = line.endswith(b"\n") or len(line) < LINE_BYTES_MAX
        yield number, line if whole else None
        while not whole and (line := file.readline(LINE_BYTES_MAX)):
            progress(len(line))
            whole = line.endswith(b"\n")


def _fields(line: bytes | None) -> list[str] | str:
    """The fields of a line, or why it has none. Each line is parsed by itself, so that a stray quote spoils only its own."""
    if line is None:
        return f"longer than {LINE_BYTES_MAX} bytes"
    try:
        return next(csv.reader([line.decode("utf-8-sig")], strict=True), [])
    except UnicodeDecodeError:
        return "not UTF-8"
    except csv.Error as error:
        return f"not CSV: {error}"


class _Record:
    """A mapping bound to the column positions of one file."""

    def __init__(self, mapping: LogMapping, names: list[str], path: Path) -> None:
        positions = {name: position for position, name in enumerate(names)}
        context = msgspec.structs.asdict(mapping.context)
        columns = msgspec.structs.asdict(mapping.columns)
        self._format = columns.pop("time_format")
        self._custom: dict[str, str] = context.pop("custom")
        for name in filter(None, (*columns.values(), *context.values(), *self._custom.values())):
            if name not in positions:
                raise LogRefused(f"log {path} has no column {name!r}, which the mapping names")
        self._columns: dict[str, str | None] = columns
        self._context: dict[str, str] = {part: name for part, name in context.items() if name}
        self._positions = positions
        self._mapping = mapping
        self._missing = frozenset(mapping.missing)
        self._zone = ZoneInfo(mapping.time_zone)

    def parse(self, number: int, line: bytes | None) -> Row | Malformed:
        fields = _fields(line)
        if isinstance(fields, str):
            return Malformed(number, fields)
        if len(fields) != len(self._positions):
            return Malformed(number, f"{len(fields)} fields instead of {len(self._positions)}")
        try:
            return self._row(number, fields)
        except ValueError as error:
            return Malformed(number, str(error))

    def _row(self, number: int, fields: list[str]) -> Row:
        return Row(
            line=number,
            at_ms=self._moment_ms(self._wanted(fields, "time")),
            viewer=self._wanted(fields, "viewer") if self._columns["viewer"] else str(number),
            campaign=self._wanted(fields, "campaign"),
            clicked=_flag(self._wanted(fields, "click")),
            context=self._read_context(fields),
            bid_micros=self._price(fields, "bid"),
            floor_micros=self._price(fields, "floor"),
        )

    def _moment_ms(self, written: str) -> int:
        moment = datetime.strptime(written, self._format)  # noqa: DTZ007 - gets its zone below
        moment_ms = to_ms(moment.replace(tzinfo=moment.tzinfo or self._zone))
        if moment_ms < 0:
            raise ValueError("the time lies before 1970")
        return moment_ms

    def _read_context(self, fields: list[str]) -> Context:
        constants = self._mapping.constants
        known: dict[str, object] = {
            part: value for part, name in self._context.items() if (value := self._field(fields, name))
        }
        custom = {key: value for key, name in self._custom.items() if (value := self._field(fields, name))}
        if interests := known.get("interests"):
            known["interests"] = tuple(filter(None, str(interests).split(",")))
        if age := known.get("age"):
            known["age"] = int(str(age))
        return msgspec.structs.replace(
            constants,
            time_zone=self._mapping.time_zone,
            **known,
            custom=constants.custom | custom,
        )

    def _field(self, fields: list[str], name: str) -> str | None:
        value = fields[self._positions[name]].strip()
        return None if value in self._missing else value

    def _wanted(self, fields: list[str], part: str) -> str:
        name = self._columns[part]
        value = self._field(fields, name) if name else None
        if value is None:
            raise ValueError(f"{name} is missing")
        return value

    def _price(self, fields: list[str], part: str) -> int | None:
        if self._columns[part] is None:
            return None
        micros = int(self._wanted(fields, part)) * self._mapping.price_unit_micros
        if not 0 <= micros <= MICROS_MAX:
            raise ValueError(f"{self._columns[part]} is not a price")
        return micros


def _flag(value: str) -> bool:
    if value not in ("0", "1"):
        raise ValueError(f"a click is 0 or 1, not {value!r}")
    return value == "1"
