"""Keeps the rules of invalid traffic in force: the operator's newest revision, and the list of networks in its file."""

import asyncio
import os
from pathlib import Path
from typing import Any

from prometheus_client import Counter

from adserve.metering.networks import NO_NETWORKS, Networks, NetworksDamaged, decode_networks
from adserve.metering.origins import CRAWLERS_VERSION, Origins
from adserve.metering.pseudonyms import Pseudonyms
from adserve.metering.traffic import Traffic
from adserve.settings import Settings, SettingsError
from adserve.store.traffic import TrafficStore

TRAFFIC_S = 2.0
NETWORKS_BYTES_MAX = 32_000_000
ANY_WIDTH = {4: 0, 6: 0}

INVALID = Counter("adserve_invalid_events", "Events found invalid as they came, by reason.", ["reason"])

_Stamp = tuple[int, int, int]


class TrafficKeeper:
    """`step` reads what changed. A damaged file fails it, which /readyz shows, and the last good list stays."""

    def __init__(self, traffic: Traffic, store: TrafficStore, networks: Networks, path: Path | None) -> None:
        self.traffic = traffic
        self._store = store
        self._path = path
        self._stamp: _Stamp | None = None
        self._in_force: tuple[int, str] | None = None
        self.networks = networks

    async def step(self, now_ms: int) -> None:
        self.traffic.sweep(now_ms)
        damage = await self._reread()
        revision = await self._store.newest()
        wanted = revision.number, self.networks.digest
        if wanted != self._in_force:
            version = await self._store.version_of(revision, CRAWLERS_VERSION, self.networks.digest, now_ms)
            self.traffic.use(version, revision.rules, self.networks)
            self._in_force = wanted
        if damage is not None:
            raise damage

    async def _reread(self) -> NetworksDamaged | None:
        if self._path is None:
            return None
        try:
            stamp = _stamp(self._path)
            if stamp != self._stamp:
                self.networks = await asyncio.to_thread(_read, self._path)
                self._stamp = stamp
        except NetworksDamaged as damage:
            return damage
        return None


def keeper_of(settings: Settings, pool: Any, pseudonyms: Pseudonyms) -> TrafficKeeper:
    """`pool` is one of adserve_recorder. Raises SettingsError for a damaged list."""
    traffic = Traffic(Origins(pseudonyms), lambda reason: INVALID.labels(reason).inc())
    return TrafficKeeper(traffic, TrafficStore(pool), read_networks(settings), settings.networks_path)


def read_networks(settings: Settings) -> Networks:
    """At the start there is no last good list: raises SettingsError for a damaged one."""
    if settings.networks_path is None:
        return NO_NETWORKS
    try:
        return _read(settings.networks_path)
    except NetworksDamaged as damage:
        raise SettingsError(f"networks_path: {damage}") from damage


def trusted_proxies(settings: Settings) -> Networks:
    if not settings.trusted_proxies:
        return NO_NETWORKS
    try:
        return decode_networks(settings.trusted_proxies.replace(",", "\n").encode(), ANY_WIDTH)
    except NetworksDamaged as damage:
        raise SettingsError(f"trusted_proxies: {damage}") from damage


def _stamp(path: Path) -> _Stamp:
    try:
        status = os.stat(path)
    except OSError as error:
        raise NetworksDamaged(f"{path}: {error.strerror}") from error
    return status.st_ino, status.st_size, status.st_mtime_ns


def _read(path: Path) -> Networks:
    try:
        with path.open("rb") as file:
            raw = file.read(NETWORKS_BYTES_MAX + 1)
    except OSError as error:
        raise NetworksDamaged(f"{path}: {error.strerror}") from error
    if len(raw) > NETWORKS_BYTES_MAX:
        raise NetworksDamaged(f"{path}: has more than {NETWORKS_BYTES_MAX:,} bytes")
    try:
        return decode_networks(raw)
    except NetworksDamaged as damage:
        raise NetworksDamaged(f"{path}: {damage}") from damage
