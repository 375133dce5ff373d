"""`adserve explain ID`: shows a recorded decision and makes it again; exit code 1 when it is not the same."""

import argparse
import asyncio
import sys
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import msgspec

from adserve.api.decisions import DecisionMade, shown
from adserve.bootstrap.server import database_server
from adserve.database.pools import open_pool
from adserve.selection.recording import RecordRefused
from adserve.settings import Settings
from adserve.store.decisions import replayed
from adserve.store.errors import Missing

ADS_SHOWN = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("decision", type=UUID, help="the id that the slot request was answered with")
    parser.add_argument("--json", action="store_true", help="answer one JSON object, with all ads")


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    try:
        told = asyncio.run(_told(settings, arguments.decision))
    except (Missing, RecordRefused) as error:
        print(f"adserve explain: {error}", file=sys.stderr)
        return 1
    text = msgspec.json.encode(told).decode() if arguments.json else "\n".join(_lines(told))
    print(text)
    return 0 if told.same else 1


async def _told(settings: Settings, decision: UUID) -> DecisionMade:
    async with database_server(settings, _say) as url:
        pool = await open_pool(url, "adserve_analyst", size=1)
        async with pool, pool.acquire() as connection:
            return shown(await replayed(connection, decision))


def _lines(told: DecisionMade) -> Iterator[str]:
    why = told.explanation
    yield f"decision {told.decision} at {told.decided_at:%Y-%m-%d %H:%M:%S.%f} UTC"
    yield (
        f"surface {told.surface}, country {told.country or 'unknown'}, click rates by {told.model}, "
        f"catalogue version {told.catalogue_version}"
    )
    rollout = why["rollout"]
    yield f"rollout bucket {rollout['bucket']:,}, ads below {rollout['admitted_below']:,}"
    yield "ads: " + ", ".join(f"{count:,} {step.replace('_', ' ')}" for step, count in why["funnel"].items())
    yield f"no ads: {told.no_fill}" if told.no_fill else f"placed after {_listed(told)} items"
    yield ""
    yield from _table(why["ads"][:ADS_SHOWN])
    left = len(why["ads"]) - ADS_SHOWN + why["ads_left_off"]
    if left > 0:
        yield f"and {left:,} more"
    yield ""
    yield from ("same result",) if told.same else ("NOT the same result:", *told.differences)


def _listed(told: DecisionMade) -> str:
    return ", ".join(str(placed.position) for placed in told.placements)


def _table(ads: list[dict[str, Any]]) -> Iterator[str]:
    if not ads:
        return
    form = "{:>10} {:>10} {:>14} {:>10} {:>12}  {}"
    yield form.format("ad", "campaign", "value micros", "click", "price micros", "why")
    for ad in ads:
        price = "-" if ad["price_micros"] is None else f"{ad['price_micros']:,}"
        rate = f"{ad['click_rate']:.4%}"
        yield form.format(ad["ad"], ad["campaign"], f"{ad['value_micros']:,}", rate, price, _why(ad))


def _why(ad: dict[str, Any]) -> str:
    lost = ad["lost"]
    if lost is None:
        return f"placed after {ad['position']}"
    rule = f" ({lost['key']}: {lost['count']} in {lost['window_s']:,} s)" if "key" in lost else ""
    return f"{lost['reason'].replace('_', ' ')}{rule}"


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
