"""Puts the market into a service: straight into its tables, as 100,000 campaigns are no load for its API."""

from collections.abc import Sequence
from pathlib import Path

import aiohttp
import asyncpg
import orjson

from adserve.database import statements
from loadtest.generator import HOST
from loadtest.market import ADVERTISER_CAMPAIGNS, LARGE_MICROS, Brand
from loadtest.servers import Ready

SQL = statements.load(Path(__file__).parent / "sql" / "planting.sql")

BRANDS_AT_ONCE = 1_000


async def plant(database_url: str, service: Ready, brands: Sequence[Brand]) -> None:
    """Advertisers with money, their campaigns with an ad each, and everybody in the rollout."""
    await plant_brands(database_url, service.media, brands)
    await _admit_everybody(service)


async def plant_brands(database_url: str, media: str, brands: Sequence[Brand]) -> None:
    """`media` is what every creative shows; it must be there already."""
    connection = await asyncpg.connect(database_url, command_timeout=120)
    try:
        await connection.execute(SQL.become_owner)
        for some in _batches(brands):
            bodies = orjson.dumps([brand._asdict() for brand in some]).decode()
            planted = [row["id"] for row in await connection.fetch(SQL.plant, bodies, media)]
            await connection.fetchval(SQL.deposit, planted, LARGE_MICROS * ADVERTISER_CAMPAIGNS)
        await connection.execute(SQL.analyze)
    finally:
        await connection.close()


def _batches(brands: Sequence[Brand]) -> list[Sequence[Brand]]:
    return [brands[first : first + BRANDS_AT_ONCE] for first in range(0, len(brands), BRANDS_AT_ONCE)]


async def _admit_everybody(service: Ready) -> None:
    url, rollout = f"http://{HOST}:{service.port}/v1/rollout", {"surfaces": {"status": {"percent": 100}}}
    headers = {"Authorization": f"Bearer {service.key}"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.put(url, json=rollout) as answer,
    ):
        answer.raise_for_status()
