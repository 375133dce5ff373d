"""`adserve charge EVENT`: shows a charge and rates it again; exit code 1 when it does not come out the same."""

import argparse
import asyncio
import sys
from collections.abc import Iterator
from uuid import UUID

import msgspec

from adserve.api.charges import ChargeShown, pricing, shown
from adserve.bootstrap.server import database_server
from adserve.database.pools import open_pool
from adserve.settings import Settings
from adserve.store.charges import charged
from adserve.store.errors import Missing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("event", type=UUID, help="the id that the report of the event was answered with")
    parser.add_argument("--json", action="store_true", help="answer one JSON object")


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    try:
        told = asyncio.run(_told(settings, arguments.event))
    except Missing as error:
        print(f"adserve charge: {error}", file=sys.stderr)
        return 1
    text = msgspec.json.encode(told).decode() if arguments.json else "\n".join(_lines(told))
    print(text)
    return 0 if told.rating.same else 1


async def _told(settings: Settings, event: UUID) -> ChargeShown:
    async with database_server(settings, _say) as url:
        pool = await open_pool(url, "adserve_analyst", size=1)
        async with pool, pool.acquire() as connection:
            charge = await charged(connection, event)
            return shown(charge, await pricing(connection, charge))


def _lines(told: ChargeShown) -> Iterator[str]:
    ticket, versions, currency = told.ticket, told.versions, told.billed.currency
    yield f"{told.kind} {told.event}, received {told.received_at:%Y-%m-%d %H:%M:%S.%f} UTC"
    yield f"{told.outcome}, billed {told.billed.micros:,} micros {currency}: {told.rating.reason}"
    yield (
        f"ticket {ticket.ticket} of {ticket.issued_at:%Y-%m-%d %H:%M:%S} UTC bills the {ticket.billable} "
        f"at {ticket.price.micros:,} micros ({ticket.bid_model})"
    )
    yield f"advertiser {ticket.advertiser}, campaign {ticket.campaign}, ad {ticket.ad}, position {ticket.position}"
    yield f"rules {versions.rules}, catalogue {versions.catalogue}, click rates by {versions.model}"
    price = told.pricing
    if price is None:
        yield f"decision {ticket.decision} is not recorded: how the price came about is not known"
    else:
        rival = "none" if price.runner_up is None else f"ad {price.runner_up.ad}"
        yield (
            f"bid {price.bid_micros:,} micros, floor {price.floor_micros:,} for 1,000 impressions, runner-up {rival}: "
            f"{price.price_micros:,} micros by {price.set_by.replace('_', ' ')}"
        )
    if told.lease is not None:
        yield (
            f"lease {told.lease.id} of {told.lease.budget_day}: {told.lease.captured.micros:,} of "
            f"{told.lease.granted.micros:,} micros captured"
        )
    for posting in told.postings:
        yield f"transaction {posting.transaction}: {posting.amount.micros:+,} {posting.account}"
    yield "same result" if told.rating.same else "NOT the same result"


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
