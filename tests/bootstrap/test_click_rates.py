"""From the clicks in the ledger to the rates by which a service without a model chooses, through its tasks."""

from pathlib import Path

import pytest
from world import superuser

from adserve import settings
from adserve.bootstrap.core import system_clock
from adserve.bootstrap.service import Service, start
from adserve.domain.time import HOUR_MS, from_ms
from adserve.prediction.prior import PERIOD_S
from loadtest.market import brands
from loadtest.planting import plant_brands

MEDIA = "a" * 64
COUNT = "INSERT INTO rollup_deltas VALUES ($1, 1, 1, $2, 'USD', $3, $4, $5, 0)"


def click_rates(service: Service) -> dict[int, float]:
    """Of ads that are paid by the click."""
    view = service.core.live.current()
    surface = view.surfaces["status"]
    return {
        ad.ad.id: rate
        for ad, rate in zip(surface.ads, surface.prepared[0].tolist(), strict=True)
        if ad.event_rate is None
    }


async def test_without_a_model_an_hour_is_enough_to_learn_of_clicks(
    database_url: str, tmp_path: Path
) -> None:
    connection = await superuser(database_url)
    await connection.execute("INSERT INTO media VALUES ($1, 'image/webp', 1, 1080, 1920)", MEDIA)
    await plant_brands(database_url, MEDIA, brands(8, 1))
    service = await start(
        settings.load(data_home=str(tmp_path), port=0), database_url, clock=system_clock, background=False
    )
    try:
        await service.run_tasks(system_clock())
        compiled = service.core.live.current().surfaces
        liked, *others = click_rates(service)
        assert click_rates(service) == pytest.approx(dict.fromkeys([liked, *others], 0.01))
        yesterday = from_ms((system_clock() // HOUR_MS - 24) * HOUR_MS)
        await connection.execute(COUNT, yesterday, liked, "impression", "recorded", 20_000)
        await connection.execute(COUNT, yesterday, liked, "click", "recorded", 1_800)
        await connection.execute(COUNT, yesterday, others[0], "click", "recorded", 5_000)
        await service.tick(system_clock() + 60_000)
        assert service.core.live.current().surfaces is compiled, "not for every click"
        await service.tick(system_clock() + round(PERIOD_S * 1_000))
        await service.tick(system_clock() + round(PERIOD_S * 1_000) + 1_000)
        rates = click_rates(service)
        assert rates[liked] == pytest.approx(0.09, rel=0.05)
        assert rates[others[0]] == 1.0, "clicks of which no impression was told are no more than all"
        compiled = service.core.live.current().surfaces
        await service.run_tasks(system_clock())
        assert service.core.live.current().surfaces is compiled, "nothing was clicked since"
    finally:
        await service.stop()
        await connection.close()
