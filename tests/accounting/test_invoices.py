"""What invoices say of a month: exactly what was charged in it, once, whatever comes late."""

import asyncio
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from zoneinfo import ZoneInfo

import asyncpg
import pytest
from billing import Billing, issued_numbers
from hypothesis import given
from hypothesis import strategies as st
from waiting import until_a_lock_is_waited_for
from world import World, superuser

from adserve.accounting.invoices import Status, amount_text
from adserve.domain.events import EventKind, Outcome
from adserve.store.books import reconciled
from adserve.store.errors import Contradiction

JANUARY, FEBRUARY, MARCH = date(2026, 1, 1), date(2026, 2, 1), date(2026, 3, 1)
JAKARTA = "Asia/Jakarta"


@pytest.fixture
async def billing(world: World) -> Billing:
    return Billing(world)


def at(text: str, zone: str = "UTC") -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)


async def test_the_lines_of_a_month_are_its_postings_to_the_micro(billing: Billing) -> None:
    second = await billing.world.add_campaign(billing.world.advertiser)
    for day in range(1, 29):
        await billing.charge(at(f"2026-01-{day:02d}T12:00"), 2_501, 3)
        await billing.charge(at(f"2026-01-{day:02d}T23:59:59"), 7_777, 1, campaign=second)
    await billing.charge(at("2026-01-05T10:00"), 999, 4, outcome=Outcome.INVALID_TRAFFIC)
    await billing.charge(at("2026-01-05T11:00"), 888, kind=EventKind.CLICK, outcome=Outcome.INVALID_TRAFFIC)
    await billing.charge(at("2026-02-01T00:00"), 5_000, 1)
    assert await billing.drafted(FEBRUARY, timedelta(hours=1)) == [], "its last events are still to come"
    (invoice,) = await billing.drafted(FEBRUARY)
    lines = await billing.lines(invoice)
    assert (invoice.month, len(lines)) == (JANUARY, 56)
    assert invoice.net_micros == sum(line.net_micros for line in lines) == await billing.revenue(JANUARY)
    assert invoice.gross_micros - invoice.invalid_micros == invoice.net_micros
    assert invoice.invalid_micros == 4 * 999
    assert invoice.total_micros == sum(line.total_micros for line in lines)
    (marred,) = [line for line in lines if line.invalid]
    assert (marred.day, marred.quantity, marred.invalid) == (date(2026, 1, 5), 7, 4)
    assert await billing.drafted(FEBRUARY) == []


@pytest.mark.parametrize(
    ("zone", "last", "first"),
    [
        ("UTC", "2026-03-31T23:59:59.999", "2026-04-01T00:00"),
        ("Asia/Kolkata", "2026-03-31T23:59:59.999", "2026-04-01T00:00"),
        ("Asia/Kathmandu", "2026-03-31T23:59:59.999", "2026-04-01T00:00"),
        ("Pacific/Kiritimati", "2026-03-31T23:59:59.999", "2026-04-01T00:00"),
        ("Pacific/Pago_Pago", "2026-03-31T23:59:59.999", "2026-04-01T00:00"),
        ("Europe/Berlin", "2026-03-31T23:59:59.999", "2026-04-01T00:00"),  # 23 hours on the 29th
        ("Australia/Lord_Howe", "2026-03-31T23:59:59.999", "2026-04-01T00:00"),
    ],
)
async def test_a_month_begins_and_ends_at_the_advertisers_own_midnight(
    billing: Billing, zone: str, last: str, first: str
) -> None:
    await billing.live_in(zone)
    for moment, price in (
        ("2026-02-28T23:59:59.999", 1),
        ("2026-03-01T00:00", 10),
        (last, 100),
        (first, 1_000),
    ):
        await billing.charge(at(moment, zone), price)
    invoices = {invoice.month: invoice for invoice in await billing.drafted(date(2026, 4, 1))}
    assert {month: invoice.gross_micros for month, invoice in invoices.items()} == {FEBRUARY: 1, MARCH: 110}
    days = [line.day for line in await billing.lines(invoices[MARCH])]
    assert days == [MARCH, date(2026, 3, 31)]


async def test_a_day_of_25_hours_is_one_day(billing: Billing) -> None:
    await billing.live_in("Europe/Berlin")
    begins, ends = at("2026-10-25T00:00", "Europe/Berlin"), at("2026-10-26T00:00", "Europe/Berlin")
    assert (ends - begins).total_seconds() == 25 * 3_600
    for hour in range(25):
        await billing.charge(datetime.fromtimestamp(begins.timestamp() + 3_600 * hour + 1_800, UTC), 1)
    (invoice,) = await billing.drafted(date(2026, 11, 1))
    assert [(line.day, line.quantity) for line in await billing.lines(invoice)] == [(date(2026, 10, 25), 25)]


async def test_a_month_with_two_midnights_begins_at_the_first(billing: Billing) -> None:
    """At one o'clock it is midnight again in Havana."""
    await billing.live_in("America/Havana")
    for moment, price in (("2026-10-31T12:00", 100), ("2026-11-01T04:30", 1), ("2026-11-01T05:30", 10)):
        (event,) = await billing.charge(at(moment), price)
        await billing.credit(event, micros=price)
    for month, micros in ((date(2026, 11, 1), 100), (date(2026, 12, 1), 11)):
        (invoice,) = await billing.drafted(month)
        assert (invoice.gross_micros, invoice.credits_micros) == (micros, micros)
        await billing.issue(invoice)


async def test_what_comes_late_stands_as_a_note_on_the_next_one(billing: Billing) -> None:
    await billing.charge(at("2026-01-10T12:00"), 10_000, 2)
    (january,) = await billing.drafted(FEBRUARY)
    january = await billing.issue(january)
    await billing.charge(at("2026-01-10T13:00"), 10_000)  # settled from a spool, weeks later
    refund = await billing.charge(at("2026-01-20T12:00"), 30_000)
    await billing.credit(refund[0])
    await billing.charge(at("2026-02-10T12:00"), 50_000)
    (february,) = await billing.drafted(MARCH)
    notes = {line.day: line for line in await billing.lines(february)}
    assert [notes[day].note for day in sorted(notes)] == ["debit", "credit", None]
    late, returned = notes[date(2026, 1, 10)], notes[date(2026, 1, 20)]
    assert (late.net_micros, late.quantity, late.corrects, late.corrects_number) == (
        10_000,
        1,
        january.id,
        january.number,
    )
    assert (returned.gross_micros, returned.credits_micros, returned.net_micros) == (30_000, 30_000, 0)
    assert february.net_micros == 60_000
    await billing.issue(february)
    await billing.charge(at("2026-01-10T14:00"), 1)
    (march,) = await billing.drafted(date(2026, 4, 1))
    (only,) = await billing.lines(march)
    assert (march.month, only.day, only.corrects, only.net_micros) == (
        MARCH,
        date(2026, 1, 10),
        january.id,
        1,
    )
    assert (await reconciled(billing.world.pools.analyst)).differences == ()


async def test_a_credit_of_an_invoiced_day_is_a_credit_note(billing: Billing) -> None:
    (event,) = await billing.charge(at("2026-01-10T12:00"), 10_000)
    (january,) = await billing.drafted(FEBRUARY)
    await billing.issue(january)
    assert await billing.credit(event, micros=4_000, reason="rate")
    assert await billing.credit(event, micros=4_000, reason="rate") is None
    assert await billing.credit(event)
    assert await billing.credit(event, reason="again") is None
    (february,) = await billing.drafted(MARCH)
    (line,) = await billing.lines(february)
    assert (line.note, line.corrects, line.net_micros, line.total_micros) == (
        "credit",
        january.id,
        -10_000,
        -10_000,
    )
    assert (await billing.issue(february)).due_micros == 0
    assert (await reconciled(billing.world.pools.analyst)).differences == ()


async def test_a_credit_that_comes_while_drafts_are_made_is_on_the_next(
    billing: Billing, database_url: str
) -> None:
    slow = "-- Whose days have become others"
    await billing.replace_in(
        "draft_invoices", slow, f"PERFORM pg_advisory_xact_lock(42); {slow}", database_url
    )
    first, second = await billing.charge(at("2026-01-10T12:00"), 10_000, 2)
    await billing.credit(first)
    gate = await superuser(database_url)
    await gate.execute("SELECT pg_advisory_lock(42)")
    drafting = asyncio.create_task(billing.drafted(FEBRUARY))
    await until_a_lock_is_waited_for(database_url)
    await billing.credit(second)
    await gate.close()
    (january,) = await drafting
    assert january.credits_micros == 10_000
    (february,) = await billing.drafted(MARCH)
    assert february.credits_micros == 10_000
    assert (await reconciled(billing.world.pools.analyst)).differences == ()


async def test_a_void_invoice_keeps_its_number_and_is_drafted_anew(billing: Billing) -> None:
    (event,) = await billing.charge(at("2026-01-10T12:00"), 10_002)
    await billing.credit(event, micros=1, reason="rate")
    (draft,) = await billing.drafted(FEBRUARY)
    first = await billing.issue(draft)
    await billing.credit(event, micros=1)
    assert await billing.void(first) is Status.ISSUED
    assert await billing.void(first) is Status.VOID
    (again,) = await billing.drafted(MARCH)
    assert (again.month, again.net_micros) == (JANUARY, 10_000)
    second = await billing.issue(again)
    assert (await billing.find(first.id)).number == first.number != second.number
    assert await issued_numbers(billing.world) == ["INV-2026-000001", "INV-2026-000002"]
    assert await billing.pay(first) is Status.VOID
    assert await billing.pay(second) is Status.ISSUED
    assert await billing.void(second) is Status.PAID
    assert await billing.balance("rounding") == 0
    assert (await reconciled(billing.world.pools.analyst)).differences == ()


async def test_each_currency_has_an_invoice_of_its_own(billing: Billing) -> None:
    await billing.charge(at("2026-01-10T12:00"), 10_000)
    await billing.spend_in("EUR")
    await billing.charge(at("2026-01-11T12:00"), 20_000)
    drafts = await billing.drafted(FEBRUARY)
    assert {draft.currency: [line.net_micros for line in await billing.lines(draft)] for draft in drafts} == {
        "USD": [10_000],
        "EUR": [20_000],
    }


async def test_numbers_begin_again_with_the_year_in_which_they_are_given(billing: Billing) -> None:
    for charged, drafted in (("2025-11-10T12:00", date(2025, 12, 1)), ("2025-12-10T12:00", JANUARY)):
        await billing.charge(at(charged))
        (draft,) = await billing.drafted(drafted)
        await billing.issue(draft)
    assert await issued_numbers(billing.world) == ["INV-2025-000001", "INV-2026-000001"]


async def test_an_invoice_stays_once_the_books_of_its_days_are_closed(
    billing: Billing, database_url: str
) -> None:
    await billing.charge(at("2026-01-10T12:00"), 10_000)
    await billing.charge(at("2026-02-10T12:00"), 20_000)
    january, february = [await billing.issue(draft) for draft in await billing.drafted(MARCH)]
    async with billing.world.pools.owner.acquire() as connection, connection.transaction():
        assert await connection.fetchval("SELECT close_day('2026-01-10', now())") is None
        voiding = asyncio.create_task(billing.void(january))
        await until_a_lock_is_waited_for(database_url)
    with pytest.raises(Contradiction, match="closed"):
        await voiding
    assert (await billing.find(january.id)).status is Status.ISSUED
    assert await billing.void(february) is Status.ISSUED


@pytest.mark.parametrize(
    ("currency", "price", "total"),
    [
        ("USD", 12_344_999, 12_340_000),
        ("USD", 12_345_000, 12_350_000),
        ("JPY", 1_499_999, 1_000_000),
        ("JPY", 1_500_000, 2_000_000),
        ("KWD", 1_234_500, 1_235_000),
        ("CLF", 1_234_549, 1_234_500),
    ],
)
async def test_a_line_is_rounded_once_to_what_can_be_paid(
    billing: Billing, currency: str, price: int, total: int
) -> None:
    await billing.spend_in(currency)
    await billing.charge(at("2026-01-10T12:00"), price)
    (draft,) = await billing.drafted(FEBRUARY)
    await billing.issue(draft)
    (line,) = await billing.lines(draft)
    assert (line.net_micros, line.total_micros) == (price, total)
    assert await billing.balance("rounding") == price - total
    assert await billing.balance("revenue") == total
    assert (await reconciled(billing.world.pools.analyst)).differences == ()


@given(st.integers(-(10**15), 10**15), st.sampled_from([0, 2, 3, 4]))
def test_amounts_are_written_exactly(micros: int, exponent: int) -> None:
    text = amount_text(micros, exponent, grouped=False)
    assert Decimal(text) == Decimal(micros) / 1_000_000
    assert len(text.partition(".")[2]) >= exponent
    assert amount_text(1_234_567_500_000, 2) == "1,234,567.50"


async def test_roundings_in_the_database_are_those_of_decimal(world: World) -> None:
    for micros in (*range(-25_000, 25_001, 2_500), 4_999, 5_001, 10**15 + 5_000):
        for exponent in (0, 2, 3):
            unit = Decimal(10) ** (6 - exponent)
            expected = (Decimal(micros) / unit).quantize(Decimal(1), ROUND_HALF_UP) * unit
            assert (
                await world.pools.owner.fetchval("SELECT round_micros($1, $2)", micros, exponent) == expected
            )


async def issue_all(billing: Billing, count: int, database_url: str) -> list[str]:
    """Drafts of as many advertisers, issued at once; every third transaction is rolled back after its number was given."""
    await billing.drafts_of_others(count)
    ids = await billing.draft_ids()
    issue = "SELECT issue_invoice($1, '{}', 'INV', '2026-03-01')"

    async def clerk(nth: int, own: list[int]) -> None:
        connection = await asyncpg.connect(database_url, server_settings={"search_path": "adserve"})
        try:
            for invoice in own:
                transaction = connection.transaction()
                await transaction.start()
                await connection.fetchval(issue, invoice)
                if (invoice + nth) % 3 == 0:
                    await transaction.rollback()
                    await connection.fetchval(issue, invoice)
                else:
                    await transaction.commit()
        finally:
            connection.terminate() if nth == 0 else await connection.close()

    await asyncio.gather(*(clerk(nth, ids[nth::6]) for nth in range(6)))
    return await issued_numbers(billing.world)


async def test_numbers_have_no_gaps_and_no_doubles_whoever_issues_at_once(
    billing: Billing, database_url: str
) -> None:
    numbers = await issue_all(billing, 48, database_url)
    assert numbers == [f"INV-2026-{number:06d}" for number in range(1, 49)]


async def test_control_numbers_from_a_sequence_leave_gaps(billing: Billing, database_url: str) -> None:
    await billing.replace_in(
        "issue_invoice",
        "ON CONFLICT (series, year) DO UPDATE SET last = s.last + 1 RETURNING last INTO v_last;",
        "ON CONFLICT DO NOTHING; v_last := nextval('numbers');",
        database_url,
        before="CREATE SEQUENCE numbers; GRANT USAGE ON numbers TO adserve_owner",
    )
    numbers = await issue_all(billing, 24, database_url)
    assert len(numbers) == 24
    assert numbers[-1] > "INV-2026-000024"


async def test_control_numbers_that_are_read_and_not_locked_come_twice(
    billing: Billing, database_url: str
) -> None:
    await billing.replace_in(
        "issue_invoice",
        "INSERT INTO invoice_series AS s (series, year, last) VALUES (p_series, v_year, 1)\n"
        "  ON CONFLICT (series, year) DO UPDATE SET last = s.last + 1 RETURNING last INTO v_last;",
        "SELECT count(number) + 1 INTO v_last FROM invoices; PERFORM pg_sleep(0.01);",
        database_url,
        before="ALTER TABLE invoices DROP CONSTRAINT invoices_number_key",
    )
    numbers = await issue_all(billing, 24, database_url)
    assert max(Counter(numbers).values()) > 1


CHANGES = (
    "UPDATE invoices SET total_micros = total_micros + 10000",
    "UPDATE invoices SET number = number || '0'",
    "UPDATE invoices SET buyer = 'another'",
    "UPDATE invoices SET status = 'draft'",
    "UPDATE invoices SET status = 'paid', paid_at = now(), due_micros = 1",
    "DELETE FROM invoices",
    "UPDATE invoice_lines SET quantity = quantity + 1",
    "DELETE FROM invoice_lines",
)


@pytest.mark.parametrize("change", CHANGES)
async def test_an_issued_invoice_does_not_change(billing: Billing, database_url: str, change: str) -> None:
    await billing.charge(at("2026-01-10T12:00"), 10_000)
    (draft,) = await billing.drafted(FEBRUARY)
    issued = await billing.issue(draft)
    owner = await superuser(database_url)
    with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="does not change"):
        await owner.execute(change)
    with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="append-only"):
        await owner.execute("TRUNCATE invoices CASCADE")
    lines = await billing.lines(issued)
    assert (await billing.find(issued.id), len(lines)) == (issued, 1)
    for table in ("invoices", "invoice_lines"):  # the control
        await owner.execute(f"ALTER TABLE {table} DISABLE TRIGGER immutable")
    await owner.execute(
        "ALTER TABLE invoices DROP CONSTRAINT invoices_check1, DROP CONSTRAINT invoices_check2"
    )
    await owner.execute("ALTER TABLE invoice_lines DROP CONSTRAINT invoice_lines_invoice_id_fkey")
    assert (await owner.execute(change)).endswith(" 1")
    await owner.close()


@pytest.mark.parametrize("role", ["recorder", "tenant", "operator", "analyst", "catalogue"])
async def test_no_role_of_the_service_writes_invoices_itself(world: World, role: str) -> None:
    for table in ("invoices", "invoice_lines", "credits", "invoice_series", "invoice_runs"):
        for change in (f"DELETE FROM {table}", f"INSERT INTO {table} DEFAULT VALUES", f"TRUNCATE {table}"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await getattr(world.pools, role).execute(change)
