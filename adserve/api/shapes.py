"""What several resources say in the same words on the wire."""

from datetime import UTC, datetime
from functools import cache
from ipaddress import ip_address
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit
from zoneinfo import available_timezones

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from adserve.domain.ids import CATALOGUE_ID_MAX
from adserve.domain.money import MICROS_MAX
from adserve.domain.time import DAY_MS, to_ms
from adserve.web.problems import invalid

Id = Annotated[int, Meta(ge=1, le=CATALOGUE_ID_MAX)]
Name = Annotated[str, Meta(min_length=1, max_length=200)]
Currency = Annotated[str, Meta(pattern="^[A-Z]{3}$", max_length=3, description="ISO 4217")]
Moment = Annotated[datetime, Meta(tz=True, description="RFC 3339")]
Status = Literal["active", "paused", "archived"]
TimeZone = Annotated[
    str, Meta(min_length=1, max_length=64, description="IANA name", examples=["Asia/Jakarta"])
]

_EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
_LATEST = datetime(2200, 1, 1, tzinfo=UTC)


class Money(Struct, frozen=True, forbid_unknown_fields=True):
    micros: Annotated[int, Meta(ge=0, le=MICROS_MAX)]
    currency: Currency


class Amount(Struct, frozen=True):
    """What may be less than nothing."""

    micros: int
    currency: Currency


class Price(Money, frozen=True, forbid_unknown_fields=True):
    """More than nothing."""

    micros: Annotated[int, Meta(ge=1, le=MICROS_MAX)]


def changes_of(name: str, whole: type[Struct], *, but: frozenset[str] = frozenset()) -> type[Struct]:
    """The type of a PATCH: every field of `whole` may be given or left out."""
    fields = [
        (field.name, field.type | UnsetType, UNSET)
        for field in msgspec.structs.fields(whole)
        if field.name not in but
    ]
    return msgspec.defstruct(name, fields, frozen=True, forbid_unknown_fields=True, module=whole.__module__)


def given(changes: Struct) -> dict[str, Any]:
    """What a PATCH names."""
    named = {name: getattr(changes, name) for name in changes.__struct_fields__}
    return {name: value for name, value in named.items() if value is not UNSET}


@cache
def _time_zones() -> frozenset[str]:
    return frozenset(available_timezones() - {"localtime"})  # PostgreSQL knows all but this one


def check_time_zone(field: str, name: str) -> None:
    if name not in _time_zones():
        raise invalid(field, "is not the IANA name of a time zone")


def check_moment(field: str, moment: datetime) -> None:
    if not _EARLIEST <= moment < _LATEST:
        raise invalid(field, f"is not between the years {_EARLIEST.year} and {_LATEST.year}")


class Between(Struct, frozen=True, forbid_unknown_fields=True, rename={"from_": "from"}):
    """`from` is included, `to` is not."""

    from_: Moment | None = None
    to: Moment | None = None

    def check(self, where: str = "?") -> None:
        for name, moment in (("from", self.from_), ("to", self.to)):
            if moment is not None:
                check_moment(where + name, moment)
        if self.from_ is not None and self.to is not None and self.to < self.from_:
            raise invalid(where + "to", "is before `from`")


def span(asked: Between, now_ms: int, *, step_ms: int, default: int, most: int) -> tuple[int, int]:
    """From where to where, in milliseconds: whole steps, that of `from` being the first and that of `to` the first one not told
    any more. Without them, the last `default` steps up to now; never more than `most`."""
    asked.check()
    end_ms = now_ms + step_ms if asked.to is None else to_ms(asked.to)
    end_ms -= end_ms % step_ms
    start_ms = end_ms - default * step_ms if asked.from_ is None else to_ms(asked.from_)
    start_ms -= start_ms % step_ms
    if start_ms > end_ms:
        raise invalid("?from", "is in the future")
    if end_ms - start_ms > most * step_ms:
        raise invalid("?from", f"is more than {most * step_ms // DAY_MS} days before the end")
    return start_ms, end_ms


def check_address(field: str, address: str) -> None:
    try:
        ip_address(address)
    except ValueError as error:
        raise invalid(field, "is not an IPv4 or IPv6 address") from error


def check_landing_url(field: str, url: str) -> None:
    """A place that a browser may be sent to: http or https, a host, no credentials."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError as error:
        raise invalid(field, "is not a URL") from error
    if not usable or "@" in parts.netloc or "\\" in url:
        raise invalid(field, "is not an http or https URL with a host and without credentials")
