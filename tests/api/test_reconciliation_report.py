"""GET /v1/reconciliation: what the newest night found, for staff."""

import asyncio

from service import Service
from world import superuser

from adserve.accounting.reconciliation import night_of
from adserve.domain.time import DAY_MS, HOUR_MS
from adserve.store.books import Nights


async def test_it_tells_the_newest_night_with_its_differences(service: Service, database_url: str) -> None:
    ids = await service.plant()
    path = "/v1/reconciliation"
    assert (await service.call("GET", path, key="analyst")).status == 404
    nights = Nights(service.pools.analyst, service.pools.recorder)
    service.clock.advance(4 * HOUR_MS)
    due_ms = night_of(service.clock(), 3)
    await asyncio.gather(*(nights.run(due_ms, service.clock) for _ in range(3)))  # one of them reconciles
    told = (await service.call("GET", path, key="analyst")).body
    assert (told["exact"], told["differing"], told["differences"]) == (True, 0, [])
    assert told["started_at"] == told["finished_at"] == "2026-01-01T04:00:00Z"
    assert told["compared"] > 0

    vandal = await superuser(database_url)
    await vandal.execute("UPDATE accounts SET balance_micros = balance_micros + 1 WHERE kind = 'available'")
    await vandal.close()
    await nights.run(night_of(service.clock(), 3), service.clock)  # not again in the same night
    assert (await service.call("GET", path, key="operator")).body == told
    service.clock.advance(DAY_MS)
    await nights.run(night_of(service.clock(), 3), service.clock)
    told = (await service.call("GET", path, key="operator")).body
    assert (told["exact"], told["differing"]) == (False, 1)
    (difference,) = told["differences"]
    assert difference["check"] == "balances kept for leasing"
    assert difference["key"] == ["available", str(ids["advertiser"]), "USD"]
    assert difference["booked"] - difference["derived"] == 1

    tenant = await service.issue("advertiser", "analyst", advertiser=ids["advertiser"])
    assert (await service.call("GET", path, key=tenant)).status == 403
    assert (await service.call("GET", path, key="feed")).status == 403


def test_a_night_begins_at_its_hour() -> None:
    assert night_of(DAY_MS + 3 * HOUR_MS, 3) == DAY_MS + 3 * HOUR_MS
    assert night_of(DAY_MS + 3 * HOUR_MS - 1, 3) == 3 * HOUR_MS
