"""Invoices over HTTP: who sees which, in which form, and what may be done with them."""

import asyncio
import csv
import io
from datetime import UTC, date, datetime
from typing import Any

import pytest
from billing import Billing
from service import SELLER, Service, campaign_body
from world import World, make_world, superuser

from adserve.api import invoice_documents
from adserve.api.invoice_documents import Drawing
from adserve.domain.time import DAY_MS
from adserve.web.problems import Problem

FEBRUARY, MARCH = date(2026, 2, 1), date(2026, 3, 1)
HOSTILE = "=HYPERLINK(1)"


@pytest.fixture
async def billing(service: Service) -> Billing:
    world: World = await make_world(service.pools)
    await service.pools.operator.execute("UPDATE campaigns SET name = $1", HOSTILE)
    return Billing(world)


async def drafted(billing: Billing) -> int:
    await billing.charge(datetime(2026, 1, 10, tzinfo=UTC), 12_345, 3)
    (draft,) = await billing.drafted(FEBRUARY)
    return draft.id


async def test_an_invoice_is_issued_read_and_paid(service: Service, billing: Billing) -> None:
    path = f"/v1/invoices/{await drafted(billing)}"
    draft = (await service.call("GET", path)).body
    assert (draft["status"], draft["number"], draft["seller"], draft["due"]) == ("draft", None, None, None)
    issued = await service.call("POST", f"{path}/issue")
    assert (issued.status, issued.body["number"], issued.body["status"]) == (200, "INV-2026-000001", "issued")
    assert issued.body["seller"]["name"] == SELLER.name
    assert (await service.call("POST", f"{path}/issue")).body == issued.body
    assert issued.body["gross"] == {"micros": 37_035, "currency": "USD"}
    assert issued.body["total"] == {"micros": 40_000, "currency": "USD"}
    assert issued.body["due"] == {"micros": 0, "currency": "USD"}
    (line,) = issued.body["lines"]
    assert (line["day"], line["name"], line["quantity"], line["corrects"]) == ("2026-01-10", HOSTILE, 3, None)
    paid = await service.call("POST", f"{path}/paid")
    assert (paid.status, paid.body["status"]) == (200, "paid")
    for verb in ("void", "issue"):
        refused = await service.call("POST", f"{path}/{verb}")
        assert (refused.status, refused.body["status"]) == (409, 409)
    assert (await service.call("POST", "/v1/invoices/999/issue")).status == 404
    assert (await service.call("GET", "/v1/invoices/999")).status == 404


async def test_a_draft_is_neither_paid_nor_void(service: Service, billing: Billing) -> None:
    path = f"/v1/invoices/{await drafted(billing)}"
    for verb in ("void", "paid"):
        assert (await service.call("POST", f"{path}/{verb}")).status == 409


async def test_advertisers_see_their_own_and_move_none(service: Service, billing: Billing) -> None:
    invoice = await drafted(billing)
    await billing.drafts_of_others(1)
    others = [one.id for one in await billing.all() if one.id != invoice]
    key = await service.issue("advertiser", advertiser=billing.world.advertiser)
    listed = (await service.call("GET", "/v1/invoices", key=key)).body["items"]
    assert [item["id"] for item in listed] == [invoice]
    assert (await service.call("GET", f"/v1/invoices/{invoice}", key=key)).status == 200
    for form in ("json", "csv", "pdf"):
        assert (await service.call("GET", f"/v1/invoices/{others[0]}?format={form}", key=key)).status == 404
    for verb in ("issue", "void", "paid"):
        assert (await service.call("POST", f"/v1/invoices/{invoice}/{verb}", key=key)).status == 403
    assert (await service.call("GET", "/v1/invoices", key="feed")).status == 403
    assert len((await service.call("GET", "/v1/invoices", key="analyst")).body["items"]) == 2


async def test_control_without_their_policies_invoices_leak(
    service: Service, billing: Billing, database_url: str
) -> None:
    await drafted(billing)
    await billing.drafts_of_others(1)
    owner = await superuser(database_url)
    await owner.execute("ALTER POLICY own ON invoices USING (true)")
    await owner.close()
    key = await service.issue("advertiser", advertiser=billing.world.advertiser)
    assert len((await service.call("GET", "/v1/invoices", key=key)).body["items"]) == 2


async def test_lists_are_filtered_and_paged(service: Service, billing: Billing) -> None:
    first = await drafted(billing)
    await billing.drafts_of_others(4)

    async def ids(query: str) -> list[int]:
        return [item["id"] for item in (await service.call("GET", f"/v1/invoices?{query}")).body["items"]]

    assert await ids(f"advertiser={billing.world.advertiser}") == [first]
    assert await ids("status=issued") == await ids("month=2025-12") == await ids("currency=EUR") == []
    assert len(await ids("month=2026-01&status=draft&currency=USD")) == 5
    seen, after = [], ""
    for _ in range(3):
        page = (await service.call("GET", f"/v1/invoices?limit=2{after}")).body
        seen += [item["id"] for item in page["items"]]
        after = f"&after={page['next']}"
    assert (len(seen), seen, page["next"]) == (5, sorted(seen), None)
    for query, field in (
        ("month=2026-13", "?month"),
        ("status=lost", "?status"),
        ("after=x", "?after"),
        ("x=1", "?x"),
    ):
        reply = await service.call("GET", f"/v1/invoices?{query}")
        assert (reply.status, reply.fields) == (400, [field]), query


@pytest.mark.parametrize("name", [HOSTILE, "+1", "-1+2", "@SUM(1)", "\tx", "\rx"])
async def test_a_spreadsheet_has_nothing_to_run(service: Service, billing: Billing, name: str) -> None:
    await service.pools.operator.execute("UPDATE campaigns SET name = $1", name)
    path = f"/v1/invoices/{await drafted(billing)}"
    reply = await service.call("GET", path, Accept="text/csv")
    assert reply.headers["Content-Type"] == "text/csv; charset=utf-8"
    (row,) = csv.DictReader(io.StringIO(reply.raw.decode(), newline=""))
    assert row["name"] == f"'{name}"
    assert (row["gross_micros"], row["total"], row["quantity"], row["day"]) == (
        "37035",
        "0.04",
        "3",
        "2026-01-10",
    )
    assert all(not cell.startswith(("=", "+", "-", "@", "\t", "\r")) for cell in row.values())


async def test_a_pdf_is_the_same_bytes_each_time(service: Service, billing: Billing) -> None:
    path = f"/v1/invoices/{await drafted(billing)}"
    await service.call("POST", f"{path}/issue")
    first = await service.call("GET", path, Accept="application/pdf")
    again = await service.call("GET", f"{path}?format=pdf", Accept="application/json")
    assert first.headers["Content-Type"] == "application/pdf"
    assert "INV-2026-000001.pdf" in first.headers["Content-Disposition"]
    assert first.raw.startswith(b"%PDF-")
    assert first.raw == again.raw


async def test_too_much_to_draw_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    held = asyncio.Event()

    async def draw(_given: bytes) -> bytes:
        await held.wait()
        return b"%PDF-"

    monkeypatch.setattr(invoice_documents, "_draw", draw)
    drawing, nothing = Drawing(), []
    waiting = [asyncio.create_task(drawing.draw(None, nothing)) for _ in range(invoice_documents.WAITING_MAX)]
    await asyncio.sleep(0)
    with pytest.raises(Problem):
        await drawing.draw(None, nothing)
    held.set()
    assert set(await asyncio.gather(*waiting)) == {b"%PDF-"}


async def test_the_time_zone_stays_once_its_days_were_invoiced(service: Service, billing: Billing) -> None:
    path = f"/v1/advertisers/{billing.world.advertiser}"
    change = {"time_zone": "Asia/Jakarta"}
    assert (await service.call("PATCH", path, change, If_Match="*")).status == 200
    await drafted(billing)
    reply = await service.call("PATCH", path, {"time_zone": "UTC"}, If_Match="*")
    assert (reply.status, reply.fields) == (409, ["$.time_zone"])
    assert (await service.call("PATCH", path, change | {"name": "b"}, If_Match="*")).status == 200


async def test_promotions_and_the_credit_line(service: Service) -> None:
    made = (await service.made("/v1/advertisers", {"name": "Kopi Rana"}))["id"]
    path = f"/v1/advertisers/{made}"
    amount: dict[str, Any] = {"amount": {"micros": 5_000_000, "currency": "USD"}}
    for _ in range(2):
        given = await service.made(
            f"{path}/promotions", amount | {"reference": "welcome"}, Idempotency_Key="p"
        )
        assert given["reference"] == "welcome"
    line = await service.call("PUT", f"{path}/credit-line", amount)
    assert (line.status, line.body) == (200, amount)
    (balance,) = (await service.call("GET", f"{path}/balance")).body["balances"]
    assert {name: balance[name]["micros"] for name in ("available", "promotional", "credit_line", "owed")} == {
        "available": 0, "promotional": 5_000_000, "credit_line": 5_000_000, "owed": 0
    }  # fmt: skip  # laid out as rows
    key = await service.issue("advertiser", advertiser=made)
    assert (await service.call("POST", f"{path}/promotions", amount, key=key)).status == 403
    assert (await service.call("PUT", f"{path}/credit-line", amount, key=key)).status == 403
    assert (await service.call("PUT", "/v1/advertisers/999/credit-line", amount)).status == 404
    world = await make_world(service.pools)
    world.advertiser, world.campaign = made, await world.add_campaign(made)
    await world.lease(9_000_000)
    lower = await service.call(
        "PUT", f"{path}/credit-line", {"amount": {"micros": 3_999_999, "currency": "USD"}}
    )
    assert (lower.status, lower.fields) == (409, ["$.amount.micros"])


async def test_a_budget_is_not_lowered_below_what_is_spent_or_held(service: Service) -> None:
    world = await make_world(service.pools)
    budget = {
        "daily": {"micros": 100_000, "currency": "USD"},
        "total": {"micros": 500_000, "currency": "USD"},
    }
    made = await service.made("/v1/campaigns", campaign_body(world.advertiser, budget=budget))
    service.clock.now_ms = 1_767_268_800_000
    await world.lease(80_000, made["id"])

    async def change(daily: int, total: int) -> tuple[int, list[str]]:
        changed = {
            "daily": {"micros": daily, "currency": "USD"},
            "total": {"micros": total, "currency": "USD"},
        }
        path = f"/v1/campaigns/{made['id']}"
        reply = await service.call("PATCH", path, {"budget": changed}, If_Match="*")
        return reply.status, reply.fields if reply.status != 200 else []

    assert await change(79_999, 500_000) == (409, ["$.budget.daily.micros"])
    assert await change(100_000, 79_999) == (409, ["$.budget.total.micros"])
    assert await change(80_000, 80_000) == (200, [])
    service.clock.now_ms += DAY_MS
    assert await change(1, 80_000) == (200, [])
