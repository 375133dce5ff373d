"""The rules that are in force: the newest revision, and the list of networks as its file last was whole."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

import pytest
from world import NOW_MS

from adserve.bootstrap.traffic import TrafficKeeper, keeper_of, read_networks, trusted_proxies
from adserve.database.pools import Pools
from adserve.domain.events import EventKind
from adserve.domain.traffic import Reason, Rules, Source, Verdict
from adserve.metering.networks import NetworksDamaged
from adserve.metering.pseudonyms import Pseudonyms, ViewerSecrets
from adserve.metering.traffic import Moments
from adserve.settings import Settings, SettingsError
from adserve.store import traffic

HOSTED = "52.95.110.7"


class Facts(NamedTuple):
    ticket: UUID
    viewer_cap: bytes = b"v" * 16
    issued_at_ms: int = NOW_MS


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "networks"
    path.write_text("52.95.110.0/24\n")
    return path


@pytest.fixture
def keep(pools: Pools, path: Path) -> Callable[[], TrafficKeeper]:
    pseudonyms = Pseudonyms(ViewerSecrets(b"c" * 32, ((0, b"m" * 32),)))
    return lambda: keeper_of(Settings(networks_path=path), pools.recorder, pseudonyms)


def write(path: Path, text: str) -> None:
    path.write_text(text)


def unlink(path: Path) -> None:
    path.unlink()


def swap(path: Path, old: str, new: str) -> None:
    """Leaves size and time as they were."""
    status, other = path.stat(), path.with_suffix(".new")
    other.write_text(path.read_text().replace(old, new))
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.replace(path)


def verdict(keeper: TrafficKeeper, nth: int = 1) -> Verdict:
    source, moments = Source(None, HOSTED), Moments(NOW_MS + 1_000)
    return keeper.traffic.judge(EventKind.IMPRESSION, Facts(UUID(int=nth)), moments, source)


async def test_a_changed_file_is_a_new_version(keep: Callable[[], TrafficKeeper], path: Path) -> None:
    keeper = keep()
    await keeper.step(NOW_MS)
    assert verdict(keeper)[:2] == (Reason.DATA_CENTRE, 1)
    write(path, "198.51.100.0/24\n")
    await keeper.step(NOW_MS)
    assert verdict(keeper, 2)[:2] == (None, 2)
    other = keep()  # a process on another host that reads the same list
    await other.step(NOW_MS)
    assert verdict(other)[:2] == (None, 2)
    write(path, "52.95.110.0/24\n")
    await keeper.step(NOW_MS)
    assert verdict(keeper, 3)[:2] == (Reason.DATA_CENTRE, 1)


@pytest.mark.parametrize("damage", ["", "52.95.110.0/24\n<html>", "0.0.0.0/0"])
async def test_the_last_good_list_outlives_a_damaged_file(
    keep: Callable[[], TrafficKeeper], path: Path, damage: str
) -> None:
    keeper = keep()
    await keeper.step(NOW_MS)
    write(path, damage)
    for _ in range(2):
        with pytest.raises(NetworksDamaged, match="networks: "):
            await keeper.step(NOW_MS)
        assert verdict(keeper)[:2] == (Reason.DATA_CENTRE, 1)
    unlink(path)
    with pytest.raises(NetworksDamaged, match="No such file"):
        await keeper.step(NOW_MS)
    write(path, "198.51.100.0/24\n")
    await keeper.step(NOW_MS)
    assert verdict(keeper, 2)[:2] == (None, 2)


async def test_new_rules_come_into_force_beside_a_damaged_file(
    keep: Callable[[], TrafficKeeper], path: Path, pools: Pools
) -> None:
    keeper = keep()
    await keeper.step(NOW_MS)
    write(path, "damaged")
    async with pools.operator.acquire() as connection, connection.transaction():
        revised = await traffic.revise(connection, Rules(data_centres=False), "x", "", NOW_MS)
    assert revised.revision == 2
    with pytest.raises(NetworksDamaged):
        await keeper.step(NOW_MS)
    assert verdict(keeper).reason is None


def test_a_damaged_file_refuses_the_start(path: Path) -> None:
    write(path, "damaged")
    with pytest.raises(SettingsError, match=r"networks_path: .*line 1"):
        read_networks(Settings(networks_path=path))
    with pytest.raises(SettingsError, match="No such file"):
        read_networks(Settings(networks_path=path.with_name("nowhere")))


def test_proxies_are_networks() -> None:
    assert trusted_proxies(Settings(trusted_proxies="10.0.0.0/8, fd00::/8")).count == 2
    assert trusted_proxies(Settings()).count == 0
    with pytest.raises(SettingsError, match="trusted_proxies"):
        trusted_proxies(Settings(trusted_proxies="everybody"))


async def test_a_file_of_the_same_size_and_second_is_read_again(
    keep: Callable[[], TrafficKeeper], path: Path
) -> None:
    keeper = keep()
    await keeper.step(NOW_MS)
    swap(path, "110", "111")
    await keeper.step(NOW_MS)
    assert verdict(keeper)[:2] == (None, 2)
