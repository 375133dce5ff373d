"""The books of a quarter with all that may happen to invoices are exact, and a change of one in any of them is found and named."""

from collections.abc import Sequence
from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import asyncpg
import pytest
from billing import Billing
from world import NOW_MS, World, superuser

from adserve.accounting.invoices import Invoice
from adserve.accounting.reconciliation import Difference
from adserve.domain.events import Outcome
from adserve.domain.time import DAY_MS, from_ms
from adserve.store.books import SQL, reconciled
from adserve.store.closing import Closing
from adserve.store.journal import SQL as JOURNAL
from adserve.store.journal import rows_of

FEBRUARY, MARCH, APRIL = date(2026, 2, 1), date(2026, 3, 1), date(2026, 4, 1)
CHECK = "charges on invoices"
LATER = from_ms(NOW_MS + 400 * DAY_MS)


def at(text: str, zone: str = "UTC") -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)


@pytest.fixture
async def billing(world: World) -> Billing:
    return Billing(world)


async def found(world: World) -> tuple[Difference, ...]:
    return (await reconciled(world.pools.analyst)).differences


async def quarter(billing: Billing, zone: str = "UTC") -> list[Invoice]:
    """January's invoice, then February's with a debit and a credit note, both issued."""
    await billing.live_in(zone)
    second = await billing.world.add_campaign(billing.world.advertiser)
    await billing.charge(at("2026-01-01T00:00", zone), 10_000, 2)
    await billing.charge(at("2026-01-31T23:59:59", zone), 30_000, campaign=second)
    await billing.charge(at("2026-01-31T23:59:59", zone), 700, 3, outcome=Outcome.INVALID_TRAFFIC)
    (january,) = await billing.drafted(FEBRUARY)
    january = await billing.issue(january)
    late = await billing.charge(at("2026-01-31T12:00", zone), 40_000, campaign=second)
    await billing.charge(at("2026-01-31T12:00", zone), 900, outcome=Outcome.INVALID_TRAFFIC)
    await billing.credit(late[0], micros=15_000)
    await billing.charge(at("2026-02-10T12:00", zone), 20_000, 2)
    (february,) = await billing.drafted(MARCH)
    return [january, await billing.issue(february)]


@pytest.mark.parametrize("zone", ["Asia/Kolkata", "Europe/Berlin"])
async def test_right_books_stay_exact_at_every_step(billing: Billing, zone: str) -> None:
    world = billing.world
    january, february = await quarter(billing, zone)
    assert await found(world) == ()
    for clock in ("2026-03-28T23:30", "2026-03-29T00:30", "2026-03-29T03:30"):  # of 23 hours in Berlin
        await billing.charge(at(clock, zone), 5_000)
    await billing.charge(at("2026-01-01T09:00", zone), 60_000)
    await billing.charge(at("2026-02-10T12:00", zone), 80, outcome=Outcome.INVALID_TRAFFIC)
    assert await found(world) == ()
    await billing.void(february)
    assert await found(world) == ()
    (again,) = await billing.drafted(MARCH)
    assert await found(world) == ()
    await billing.void(january)
    await billing.charge(at("2026-01-01T10:00", zone), 70_000)
    assert await found(world) == ()
    (anew,) = await billing.drafted(MARCH)
    assert anew.month == january.month
    assert await found(world) == ()
    await billing.issue(anew)
    await billing.issue(again)
    (march,) = await billing.drafted(APRIL)
    await billing.pay(await billing.issue(march))
    assert await billing.drafted(date(2026, 5, 1)) == []
    assert await found(world) == ()
    stand = {
        status: [invoice for invoice in await billing.all() if invoice.status == status]
        for status in ("issued", "paid")
    }
    assert len(stand["issued"]) + len(stand["paid"]) == 3
    assert (
        sum(invoice.net_micros for invoice in stand["issued"] + stand["paid"])
        == await charged(world) - 15_000
    )


async def charged(world: World) -> int:
    micros: int = await world.fetchval("SELECT sum(billed_micros)::bigint FROM events")
    return micros


PARTS = ("gross", "invalid", "credits", "net", "total")
HEADER = (
    f"UPDATE invoices i SET ({', '.join(f'{part}_micros' for part in PARTS)}) ="
    f" (SELECT {', '.join(f'coalesce(sum({part}_micros), 0)' for part in PARTS)} FROM invoice_lines WHERE invoice_id = i.id)"
)
"""Whoever falsifies lines makes the sums of their invoice agree."""

FIRST_LINE = "WHERE invoice_id = 1 AND line = 1"  # January 1st, two charges of 10,000
LAST_NOTE = "WHERE invoice_id = 2 AND day = '2026-01-31' AND campaign_id = 2"  # the late charge of 40,000, and its credit
COPY = (
    "INSERT INTO invoice_lines SELECT {0}, 99, campaign_id, campaign, day, unit, corrects, quantity, invalid, gross_micros,"
    " invalid_micros, 0, gross_micros - invalid_micros, gross_micros - invalid_micros FROM invoice_lines {1}"
)
LESS = "gross_micros = gross_micros - {0}, net_micros = net_micros - {0}, total_micros = total_micros - {0}"

# What is done, and what comes out: invoices, campaign, day, outcome, what, and by how much the books are off.
PLANTED: dict[str, tuple[str, list[tuple[str, str, str, str, str, int]]]] = {
    "less of everything": (
        f"UPDATE invoice_lines SET {LESS.format(10_000)} {FIRST_LINE}",
        [("1", "1", "2026-01-01", "recorded", "micros", -10_000)],
    ),
    "a lower quantity": (
        f"UPDATE invoice_lines SET quantity = quantity - 1 {FIRST_LINE}",
        [("1", "1", "2026-01-01", "recorded", "events", -1)],
    ),
    "the day before": (
        f"UPDATE invoice_lines SET day = day - 1 {LAST_NOTE}",
        [
            ("1", "2", "2026-01-31", "recorded", "events", -1),
            ("1", "2", "2026-01-31", "recorded", "micros", -40_000),
            ("2", "2", "2026-01-30", "recorded", "events", 1),
            ("2", "2", "2026-01-30", "recorded", "micros", 40_000),
        ],
    ),
    "no lines": (
        "DELETE FROM invoice_lines WHERE invoice_id = 2",
        [
            ("1", "1", "2026-01-31", "invalid_traffic", "events", -1),
            ("1", "1", "2026-01-31", "invalid_traffic", "micros", -900),
            ("1", "2", "2026-01-31", "recorded", "events", -1),
            ("1", "2", "2026-01-31", "recorded", "micros", -40_000),
            ("2", "1", "2026-02-10", "recorded", "events", -2),
            ("2", "1", "2026-02-10", "recorded", "micros", -40_000),
        ],
    ),
    "no lines of the first": (
        "DELETE FROM invoice_lines WHERE invoice_id = 1 AND campaign_id = 1",
        [
            ("1", "1", "2026-01-01", "recorded", "events", -2),
            ("1", "1", "2026-01-01", "recorded", "micros", -20_000),
            ("2", "1", "2026-01-31", "invalid_traffic", "events", -3),
            ("2", "1", "2026-01-31", "invalid_traffic", "micros", -2_100),
        ],
    ),
    "a charge taken off": (
        f"UPDATE invoice_lines SET quantity = quantity - 1, {LESS.format(10_000)} {FIRST_LINE}",
        [
            ("1", "1", "2026-01-01", "recorded", "events", -1),
            ("1", "1", "2026-01-01", "recorded", "micros", -10_000),
        ],
    ),
    "a line counted twice": (
        COPY.format(2, FIRST_LINE),
        [
            ("1+2", "1", "2026-01-01", "recorded", "events", 2),
            ("1+2", "1", "2026-01-01", "recorded", "micros", 20_000),
        ],
    ),
    "fewer that were invalid": (
        "UPDATE invoice_lines SET quantity = quantity - 1, invalid = invalid - 1, gross_micros = gross_micros - 700,"
        " invalid_micros = invalid_micros - 700 WHERE invoice_id = 1 AND invalid > 0",
        [
            ("1+2", "1", "2026-01-31", "invalid_traffic", "events", -1),
            ("1+2", "1", "2026-01-31", "invalid_traffic", "micros", -700),
        ],
    ),
    "void, and not drafted anew": (
        "UPDATE invoices SET status = 'void', voided_at = now() WHERE id = 2; UPDATE credits SET invoice_id = NULL",
        [
            ("-", "1", "2026-02-10", "recorded", "events", -2),
            ("-", "1", "2026-02-10", "recorded", "micros", -40_000),
        ],
    ),
}


async def plant(database_url: str, *changes: str) -> None:
    vandal = await superuser(database_url)
    await vandal.execute("SET session_replication_role = replica")  # no triggers
    await drop_checks(vandal)
    for change in changes:
        await vandal.execute(change)
    await vandal.close()


async def drop_checks(vandal: asyncpg.Connection) -> None:
    for table in ("invoices", "invoice_lines"):
        for (name,) in await vandal.fetch(
            "SELECT conname FROM pg_constraint WHERE conrelid = $1::regclass AND contype = 'c'", table
        ):
            await vandal.execute(f'ALTER TABLE {table} DROP CONSTRAINT "{name}"')


def told(differences: Sequence[Difference]) -> list[tuple[str, str, str, str, str, int]]:
    return [
        (
            str(each.key[0] or "-"),
            str(each.key[2]),
            str(each.key[4] or "-"),
            str(each.key[5]),
            str(each.key[6]),
            each.booked - each.derived,
        )
        for each in differences
        if each.check == CHECK
    ]


@pytest.mark.parametrize("planted", PLANTED)
async def test_what_is_falsified_on_issued_invoices_is_named_to_the_micro(
    billing: Billing, database_url: str, planted: str
) -> None:
    await quarter(billing)
    change, differences = PLANTED[planted]
    await plant(database_url, change, HEADER)
    assert sorted(told(await found(billing.world))) == sorted(differences)


async def test_control_lines_against_sums_alone_find_none_of_it(
    billing: Billing, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await quarter(billing)
    change, _ = PLANTED["less of everything"]
    await plant(database_url, change, HEADER)
    monkeypatch.setattr("adserve.store.books._THE_BOOKS", (SQL.sum_books, SQL.check_invoices))
    assert await found(billing.world) == ()


OTHERS = {
    "an invoice that is gone": ("DELETE FROM invoices WHERE id = 2", {"invoice numbers"}),
    "a net": (f"UPDATE invoice_lines SET net_micros = net_micros + 1 {FIRST_LINE}", {"lines of invoices"}),
    "a rounding": (f"UPDATE invoice_lines SET total_micros = total_micros + 10000 {FIRST_LINE}", {"lines of invoices"}),
    "a credit on another line": (
        f"UPDATE invoice_lines SET credits_micros = 0 {LAST_NOTE}; "
        "UPDATE invoice_lines SET credits_micros = 15000 WHERE invoice_id = 2 AND day = '2026-02-10'",
        {"credits on invoices"},
    ),
    "a credit taken off": (
        f"UPDATE invoice_lines SET credits_micros = 0 {LAST_NOTE}; UPDATE credits SET invoice_id = NULL",
        {"credits on no invoice"},
    ),
}  # fmt: skip  # laid out as rows


@pytest.mark.parametrize("planted", OTHERS)
async def test_other_changes_of_invoices_are_found(billing: Billing, database_url: str, planted: str) -> None:
    await quarter(billing)
    change, checks = OTHERS[planted]
    await plant(database_url, change, HEADER)
    assert checks <= {difference.check for difference in await found(billing.world)}


async def test_retired_days_are_held_against_their_invoices_by_their_sums(
    billing: Billing, database_url: str
) -> None:
    world = billing.world
    await quarter(billing, "Asia/Kolkata")
    async with world.pools.owner.acquire() as connection:
        closing = Closing(connection)
        assert await closing.close_before(date(2026, 1, 31), LATER) is None
        assert await found(world) == ()
        await closing.detach(LATER)
        assert await found(world) == ()
        await closing.drop_detached()
    assert await found(world) == ()
    await plant(
        database_url,
        f"UPDATE invoice_lines SET quantity = quantity - 1, {LESS.format(1)} {FIRST_LINE}",
        HEADER,
    )
    assert told(await found(world)) == [
        ("1", "1", "-", "recorded", "events", -1),
        ("1", "1", "-", "recorded", "micros", -1),
    ]
    await plant(database_url, "UPDATE invoices SET status = 'void' WHERE id = 1")
    assert ("-", "1", "-", "recorded", "micros", -20_000) in told(await found(world))


async def test_an_event_that_commits_while_drafts_are_made_is_late(billing: Billing) -> None:
    """Its transaction began before they were counted, and has the lower number."""
    await billing.charge(at("2026-01-10T12:00"), 10_000)
    world = billing.world
    late = world.event(world.ticket(await world.lease(50_000)))
    async with world.pools.recorder.acquire() as writer, writer.transaction():
        await writer.fetch(JOURNAL.settle, rows_of([late]), None)
        (january,) = await billing.drafted(FEBRUARY)
    assert january.gross_micros == 10_000
    assert await found(world) == ()
    (february,) = await billing.drafted(MARCH)
    assert february.gross_micros == late.ticket.price_micros
    assert await found(world) == ()


async def test_control_a_draft_that_claims_to_have_seen_all_misses_what_is_late(
    billing: Billing, database_url: str
) -> None:
    claimed = "f.target END, pg_snapshot '9000000000:9000000000:'"
    await billing.replace_in("draft_invoices", "f.target END, v_counted_in", claimed, database_url)
    await billing.charge(at("2026-01-10T12:00"), 10_000)
    await billing.drafted(FEBRUARY)
    assert await found(billing.world) == ()
    await billing.charge(at("2026-01-10T13:00"), 10_000)
    assert [each[-1] for each in told(await found(billing.world))] == [-1, -10_000]


async def test_a_month_in_which_only_late_events_were_charged(billing: Billing) -> None:
    assert await billing.drafted(FEBRUARY) == []
    await billing.charge(at("2026-01-10T12:00"), 10_000)
    await billing.charge(at("2026-02-10T12:00"), 10_000)
    assert await found(billing.world) == ()
    january, february = await billing.drafted(MARCH)
    await billing.charge(at("2026-01-10T12:00"), 20_000)
    await billing.charge(at("2026-02-10T12:00"), 20_000)
    assert await found(billing.world) == ()
    await billing.void(await billing.issue(january))
    assert [invoice.gross_micros for invoice in await billing.drafted(MARCH)] == [30_000]
    assert await found(billing.world) == ()
    assert [invoice.gross_micros for invoice in await billing.drafted(APRIL)] == [20_000]
    await billing.void(await billing.issue(february))
    assert await found(billing.world) == ()
    await billing.drafted(APRIL)
    assert await found(billing.world) == ()


async def test_invoices_from_before_counts_were_kept_have_no_more_than_was_charged(
    billing: Billing, database_url: str
) -> None:
    await quarter(billing)
    old = "UPDATE invoices SET counted_from = NULL, counted_in = NULL; UPDATE invoice_runs SET counted_in = NULL; UPDATE transactions SET xid = NULL"
    await plant(database_url, old)
    await billing.charge(at("2026-01-10T12:00"), 10_000)
    assert await found(billing.world) == ()
    await plant(database_url, COPY.format(2, FIRST_LINE), HEADER)
    assert told(await found(billing.world)) == PLANTED["a line counted twice"][1]
