"""From the hides in the ledger to the worth of an ad, through the tasks of a whole service."""

from pathlib import Path

from world import superuser

from adserve import settings
from adserve.bootstrap.core import system_clock
from adserve.bootstrap.service import start
from adserve.domain.time import HOUR_MS, from_ms
from loadtest.market import brands
from loadtest.planting import plant_brands

MEDIA = "a" * 64
COUNT = "INSERT INTO rollup_deltas VALUES ($1, 1, 1, $2, 'USD', $3, $4, $5, 0)"


async def test_an_ad_that_people_hide_is_worth_less_a_minute_later(database_url: str, tmp_path: Path) -> None:
    connection = await superuser(database_url)
    await connection.execute("INSERT INTO media VALUES ($1, 'image/webp', 1, 1080, 1920)", MEDIA)
    await plant_brands(database_url, MEDIA, brands(8, 1))
    hidden, liked, *_ = [row["id"] for row in await connection.fetch("SELECT id FROM ads ORDER BY id")]
    service = await start(
        settings.load(data_home=str(tmp_path), port=0), database_url, clock=system_clock, background=False
    )
    try:
        live = service.core.live
        ads = {ad.id: ad for ad in live.current().snapshot.ads}
        before = live.current().surfaces["status"]
        yesterday = from_ms((system_clock() // HOUR_MS - 24) * HOUR_MS)
        for ad, hides in ((hidden, 300), (liked, 3)):
            await connection.execute(COUNT, yesterday, ad, "impression", "recorded", 30_000)
            await connection.execute(COUNT, yesterday, ad, "hide", "unbilled_kind", hides)
        await service.run_tasks(system_clock())
        view = live.current()
        assert set(view.snapshot.qualities) == {hidden}
        assert all(ads[ad.id] is ad for ad in view.snapshot.ads)
        after = view.surfaces["status"]
        ratios = (after.fixed_values + after.click_values) / (before.fixed_values + before.click_values)
        assert ratios.tolist() == [view.snapshot.qualities.get(ad.ad.id, 1.0) for ad in after.ads]
    finally:
        await service.stop()
        await connection.close()
