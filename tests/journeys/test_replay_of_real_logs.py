"""Replays of real logs, which lie beside the project and are no part of it.

The beginning of each is replayed with every run of the tests, the whole of them by `make replay-check`.
"""

import csv
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from caps import CAP, billed_twice, shown_too_soon
from commands_run import Adserve, Kept

from adserve.accounting.invoices import Invoice, Seller
from adserve.database.pools import open_pools
from adserve.domain.time import DAY_MS, to_ms
from adserve.simulation.logs import MAPPINGS
from adserve.store import invoices
from adserve.store.books import reconciled
from adserve.store.invoices import Drafts

DATA = Path(os.environ.get("ADSERVE_SHARED_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))
SESSIONS, AUCTIONS = DATA / "ad_sessions.csv", DATA / "rtb_log.csv"
BEGINNING = 1_000
INVOICED_AT = datetime(2013, 11, 3, tzinfo=UTC)
FEN_PER_1_000 = 10
"""In micros of a yuan for one impression: so the log writes its prices."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1_800),
    pytest.mark.skipif(
        not SESSIONS.is_file(), reason=f"there are no real logs in {DATA} (ADSERVE_SHARED_DATA)"
    ),
]
whole = pytest.mark.skipif("ADSERVE_WHOLE_LOGS" not in os.environ, reason="left to make replay-check")


def replay(log: Path, *more: object) -> tuple[object, ...]:
    return ("replay", log, "--mapping", MAPPINGS / f"{log.stem}.toml", "--json", *more)


def paid(rows: int | None) -> list[int]:
    """What the first auctions in time were won at."""
    with AUCTIONS.open() as file:
        auctions = sorted(csv.DictReader(file), key=lambda auction: auction["timestamp"])
    return [int(auction["payprice"]) for auction in auctions[:rows]]


async def invoiced(database_url: str) -> Invoice:
    """The one invoice of the log's month."""
    pools = await open_pools(database_url)
    try:
        assert await Drafts(pools.operator, DAY_MS).step(to_ms(INVOICED_AT)) == 1
        (draft,) = await invoices.page(pools.operator, 0, 2, invoices.Filters(None, None, None, None))
        await invoices.issue(pools.operator, draft.id, Seller(), to_ms(INVOICED_AT))
        assert (await reconciled(pools.analyst)).differences == ()
        return await invoices.one(pools.operator, draft.id)
    finally:
        await pools.close()


@pytest.mark.parametrize("rows", [BEGINNING, pytest.param(None, marks=whole)])
async def test_auctions_are_billed_and_invoiced_at_exactly_what_was_paid(
    adserve: Adserve, kept: Kept, rows: int | None
) -> None:
    prices = paid(rows)
    ended = adserve(*replay(AUCTIONS, "--keep", *(() if rows is None else ("--rows", rows))))
    assert ended.code == 0, ended.said
    report: dict[str, Any] = json.loads(ended.out)
    assert report["impressions"] == len(prices)
    assert report["billed_units"] == sum(prices)
    if rows is None:
        assert (report["impressions"], report["billed_units"]) == (12_526, 1_210_027)
    await kept(ended)  # dropped after the test
    invoice = await invoiced(ended.database_url)
    assert (invoice.buyer, invoice.currency, f"{invoice.month:%Y-%m}") == (
        "Advertiser 2259",
        "CNY",
        "2013-10",
    )
    assert invoice.gross_micros == sum(prices) * FEN_PER_1_000


@whole
async def test_caps_hold_over_whole_sessions_and_a_rerun_gives_the_same_bytes(
    adserve: Adserve, kept: Kept
) -> None:
    first, again = (
        adserve(*replay(SESSIONS, "--cap", CAP, "--keep")),
        adserve(*replay(SESSIONS, "--cap", CAP)),
    )
    assert first.code == 0, first.said
    assert first.out == again.out
    database = await kept(first)
    assert await shown_too_soon(database) == 0
    assert await billed_twice(database) == 0
    assert json.loads(first.out)["differences"] == []


@whole
async def test_control_over_whole_sessions_without_the_cap_violations_are_found(
    adserve: Adserve, kept: Kept
) -> None:
    ended = adserve(*replay(SESSIONS, "--keep"))
    assert ended.code == 0, ended.said
    assert await shown_too_soon(await kept(ended)) > 0


async def test_caps_hold_over_the_beginning_of_the_sessions(adserve: Adserve, kept: Kept) -> None:
    ended = adserve(*replay(SESSIONS, "--rows", BEGINNING, "--cap", CAP, "--keep"))
    assert ended.code == 0, ended.said
    assert await shown_too_soon(await kept(ended)) == 0
    assert json.loads(ended.out)["malformed"] == 0
