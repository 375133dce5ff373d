"""Every setting, read once: the environment over the file over the default.

`ADSERVE_CONFIG` names a TOML file. A top-level setting `x` is `ADSERVE_X` in the environment; surfaces and the seller come
from the file only, as tables `[surfaces.status]` and `[seller]`.
"""

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, Struct

from adserve.accounting.invoices import Seller
from adserve.domain.surfaces import Surface

_PREFIX = "ADSERVE_"

Positive = Annotated[int, Meta(ge=1)]


EVENTS_KEPT_DAYS_MIN = 210
"""Longer than a hide or a count is held (200 days), and than the longest ticket and the spool last together."""


ORIGINS_KEPT_DAYS_MIN = 14
"""Longer than PostgreSQL is away: a spooled event that has an origin needs the partition of its day, or it never leaves the spool."""


OUTCOMES_KEPT_DAYS_MAX = 200
"""As long as anything that hangs on a viewer's pseudonym for caps."""


DAYS_KEPT_MAX = 36_500
"""A century: some more of them, and what is kept would begin before the first day that a date can be."""


class SettingsError(ValueError):
    """A setting is unknown or has a value that it cannot have; the message names it."""


class Settings(Struct, frozen=True, forbid_unknown_fields=True):
    """One process's settings; docs/settings.md says what each is for."""

    # Root's own folder is closed to the user that its PostgreSQL runs as.
    data_home: Path = Path("/var/lib/adserve" if os.geteuid() == 0 else "~/.local/share/adserve")
    database_url: str | None = None
    redis_url: Annotated[str, Meta(pattern=r"^(rediss?|redis\+cluster)://")] | None = None
    host: Annotated[str, Meta(min_length=1)] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65_535)] = 8080
    public_url: str | None = None
    upstream_url: str | None = None
    upstream_timeout_ms: Positive = 5_000
    feed_body_max_bytes: Positive = 2_000_000
    body_max_bytes: Positive = 1_000_000
    media_max_bytes: Positive = 33_554_432
    feed_items_max: Positive = 1_000
    decision_deadline_max_ms: Positive = 1_000
    candidates_max: Annotated[int, Meta(ge=1, le=128)] = 32
    events_queued_max: Positive = 20_000
    recorder_writers: Annotated[int, Meta(ge=1, le=8)] = 2
    batch_rows_max: Annotated[int, Meta(ge=1, le=1_000)] = 1_000
    spool_max_bytes: Annotated[int, Meta(ge=65_536)] = 268_435_456
    spool_rows_per_s: Annotated[int, Meta(ge=10, le=10_000)] = 2_000
    checkpoint_interval_s: Positive = 60
    click_hold_factor: Annotated[float, Meta(gt=0, le=1_000)] = 2.0
    model_path: Path | None = None
    partitions_ahead_days: Annotated[int, Meta(ge=1, le=366)] = 7
    decision_sample_rate: Annotated[float, Meta(ge=0, le=1)] = 0.001
    decisions_kept_days: Annotated[int, Meta(ge=1, le=DAYS_KEPT_MAX)] = 30
    origins_kept_days: Annotated[int, Meta(ge=ORIGINS_KEPT_DAYS_MIN, le=DAYS_KEPT_MAX)] = 60
    ramp_look_s: Annotated[int, Meta(ge=1, le=3_600)] = 60
    outcomes_kept_days: Annotated[int, Meta(ge=1, le=OUTCOMES_KEPT_DAYS_MAX)] = 90
    networks_path: Path | None = None
    trusted_proxies: str | None = None
    events_kept_days: Annotated[int, Meta(ge=EVENTS_KEPT_DAYS_MIN, le=DAYS_KEPT_MAX)] = 400
    retired_events: Literal["keep", "export", "drop"] = "keep"
    reconcile_hour: Annotated[int, Meta(ge=0, le=23)] = 3
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    seller: Seller = Seller()
    surfaces: Annotated[dict[str, Surface], Meta(min_length=1)] = msgspec.field(
        default_factory=lambda: {"status": Surface()}
    )

    @property
    def base_url(self) -> str:
        """What the URLs in our answers begin with."""
        return (self.public_url or f"http://{self.host}:{self.port}").rstrip("/")


def load(environment: Mapping[str, str] = os.environ, **overrides: Any) -> Settings:
    """The settings of this process. `overrides` (from the command line) win over everything."""
    values: dict[str, Any] = {}
    path = environment.get(f"{_PREFIX}CONFIG")
    if path:
        values |= _read_file(Path(path))
    names = {name for name in Settings.__struct_fields__ if name not in ("seller", "surfaces")}
    values |= {
        name: environment[variable] for name in names if (variable := _PREFIX + name.upper()) in environment
    }
    values |= overrides
    try:
        settings = msgspec.convert(values, Settings, strict=False, dec_hook=_decode)
        _check_is_postgresql(settings.database_url)
        _check_is_http("public_url", settings.public_url)
        _check_is_http("upstream_url", settings.upstream_url)
    except msgspec.ValidationError as error:
        raise SettingsError(f"settings: {_as_given(str(error), environment)}") from error
    try:
        return msgspec.structs.replace(settings, data_home=settings.data_home.expanduser().absolute())
    except RuntimeError as error:
        raise SettingsError(
            f"settings: ADSERVE_DATA_HOME={settings.data_home}: there is no such home"
        ) from error


def _check_is_postgresql(url: str | None) -> None:
    """Without its driver's words: they quote a password that is not encoded."""
    if url is None:
        return
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("postgresql", "postgres") and ("@" in parts.netloc or "@" not in url)
    except ValueError:
        usable = False
    if not usable:
        raise msgspec.ValidationError(
            "Expected postgresql://user:password@host:port/database, with what is special in the password percent-encoded - "
            "at `$.database_url`"
        )


def _check_is_http(name: str, url: str | None) -> None:
    if url is None:
        return
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise msgspec.ValidationError(f"Expected an http or https URL with a host - at `$.{name}`")


def _as_given(message: str, environment: Mapping[str, str]) -> str:
    """A setting of the environment has its name there, one of the file its path."""

    def name(path: re.Match[str]) -> str:
        variable = _PREFIX + path[1].upper()
        return variable if variable in environment else path[0]

    return re.sub(r"\$\.(\w+)", name, message)


def _read_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise SettingsError(f"{_PREFIX}CONFIG={path}: {error}") from error


def _decode(wanted: type, value: Any) -> Any:
    if wanted is Path and isinstance(value, str | Path) and str(value):
        return Path(value)
    raise ValueError("Expected a path")
