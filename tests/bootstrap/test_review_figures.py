"""What a monitor learns of the creatives that wait."""

import pytest
from prometheus_client import REGISTRY
from world import superuser

from adserve.bootstrap.reviews import counting
from adserve.database.pools import Pools

WAITING = """
INSERT INTO media VALUES (repeat('a', 64), 'image/webp', 1, 1080, 1920);
INSERT INTO advertisers (id, name) VALUES (1, 'a');
SET ROLE adserve_tenant;
SET adserve.tenant = '1';
INSERT INTO creatives (advertiser_id, kind, media, headline, call_to_action, landing_url)
SELECT 1, 'image', repeat('a', 64), 'h', 'shop_now', 'https://example.org' FROM generate_series(1, 4);
UPDATE creatives SET status = 'archived' WHERE id = 1;
RESET ROLE;
UPDATE creatives SET review = 'approved' WHERE id = 2;
ALTER TABLE creatives DISABLE TRIGGER reviewed;
UPDATE creatives SET review_at = now() - id * interval '1 hour';
"""


async def test_the_creatives_that_wait_are_counted_and_how_long_the_oldest_has(
    pools: Pools, database_url: str
) -> None:
    task = counting(pools)
    await task.step(0)
    assert _figures() == (0, 0)
    connection = await superuser(database_url)
    await connection.execute(WAITING)
    await connection.close()
    await task.step(0)
    waiting, oldest_s = _figures()
    assert (waiting, oldest_s) == (2, pytest.approx(4 * 3_600, abs=300))


def _figures() -> tuple[float | None, float | None]:
    return (
        REGISTRY.get_sample_value("adserve_reviews_waiting"),
        REGISTRY.get_sample_value("adserve_reviews_oldest_seconds"),
    )
