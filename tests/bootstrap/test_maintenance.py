"""The books, looked after by the tasks of a whole service."""

import logging
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from world import NOW_MS, PRICE_MICROS, World, make_world, superuser

from adserve import settings
from adserve.bootstrap.maintenance import KNOWN_AFTER_MS, Maintenance
from adserve.bootstrap.service import Service, start
from adserve.database import partitions
from adserve.database.pools import Pools
from adserve.domain.time import DAY_MS, day_of
from adserve.settings import SettingsError
from adserve.store.impressions import SQL


@pytest.fixture
async def world(pools: Pools) -> World:
    return await make_world(pools)


@pytest.fixture
async def service(world: World, database_url: str, tmp_path: Path) -> AsyncIterator[Service]:
    loaded = settings.load(data_home=str(tmp_path), port=0, retired_events="export")
    service = await start(loaded, database_url, background=False)
    yield service
    await service.stop()


def metric(name: str) -> float | None:
    return REGISTRY.get_sample_value(f"adserve_reconciliation_{name}")


async def test_a_night_that_finds_a_difference_is_an_error_once(
    service: Service, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    maintenance, now_ms = Maintenance(service.core), service.core.clock()
    await maintenance.reconcile(now_ms)
    assert metric("differences") == 0
    assert metric("timestamp_seconds") == pytest.approx(now_ms / 1_000, abs=60)
    vandal = await superuser(database_url)
    await vandal.execute("UPDATE accounts SET balance_micros = balance_micros + 1 WHERE kind = 'available'")
    await vandal.execute("ALTER TABLE reconciliations DISABLE TRIGGER append_only")
    await vandal.execute("UPDATE reconciliations SET started_at = started_at - interval '1 day'")
    await vandal.close()
    with caplog.at_level(logging.ERROR):
        for _ in range(2):
            await maintenance.reconcile(now_ms)
    (record,) = [record for record in caplog.records if "do not add up" in record.message]
    assert record.__dict__["differences"][0].startswith("balances kept for leasing")
    assert metric("differences") == 1


async def test_an_advertisers_events_of_a_day_that_is_over_are_found_without_a_look_at_all(
    service: Service, world: World
) -> None:
    maintenance = Maintenance(service.core)

    async def indexes() -> set[str]:
        """That a page of the log is read from."""
        async with world.pools.analyst.acquire() as connection, connection.transaction():
            await connection.execute("SET LOCAL enable_seqscan = off")
            filters = "impression", None, None, world.advertiser, *[None] * 7, False
            plan = await connection.fetch("EXPLAIN " + SQL.page, 100, None, None, *filters)
        return {found[1] for (line,) in plan if (found := re.search(r"using (events_\d{8}_by_\w+)", line))}

    assert await indexes() == set()
    for _ in range(3):
        await maintenance.index(NOW_MS + DAY_MS)
    assert await indexes() == {f"events_{day_of(NOW_MS - DAY_MS):%Y%m%d}_by_advertiser_id"}


async def test_old_days_are_exported_and_young_ones_stay(
    service: Service, world: World, tmp_path: Path
) -> None:
    async with service.core.pools.owner.acquire() as connection:  # the start has dropped what names viewers
        await partitions.ensure(connection, day_of(NOW_MS), day_of(NOW_MS))
    lease = await world.lease(10_000)
    await world.journal.settle([world.event(world.ticket(lease))])
    await world.issue_invoices()
    maintenance, core = Maintenance(service.core), service.core
    await maintenance.compact(core.clock())
    assert await world.fetchval("SELECT sum(billed_micros) FROM rollups") == PRICE_MICROS
    await maintenance.retire(core.clock())
    assert await world.fetchval("SELECT count(*) FROM events") == 1
    then_ms = core.clock() + core.settings.events_kept_days * DAY_MS
    await maintenance.retire(then_ms)
    assert (
        await world.fetchval("SELECT count(*) FROM events") == 1
    )  # closed, and known to be so by nobody yet
    await maintenance.retire(then_ms + KNOWN_AFTER_MS)
    assert await world.fetchval("SELECT count(*) FROM events") == 0
    assert (tmp_path / "retired" / "events_20260101.csv.gz").exists()


def test_events_are_kept_for_longer_than_they_are_needed() -> None:
    assert settings.load({"ADSERVE_EVENTS_KEPT_DAYS": "210"}).events_kept_days == 210
    with pytest.raises(SettingsError, match="EVENTS_KEPT_DAYS"):
        settings.load({"ADSERVE_EVENTS_KEPT_DAYS": "209"})
