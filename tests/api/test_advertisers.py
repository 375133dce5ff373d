import asyncio
from typing import Any

from service import Service, campaign_body

DEPOSIT = {"amount": {"micros": 5_000_000, "currency": "USD"}, "reference": "wire 7"}


async def advertiser(service: Service, name: str = "Kopi Rana") -> int:
    made: int = (await service.made("/v1/advertisers", {"name": name}))["id"]
    return made


async def test_an_advertiser_is_created_read_and_changed(service: Service) -> None:
    created = await service.call("POST", "/v1/advertisers", {"name": "Zephyra", "time_zone": "Asia/Jakarta"})
    assert (created.status, created.headers["ETag"]) == (201, '"1"')
    path = created.headers["Location"]
    read = await service.call("GET", path)
    assert (read.status, read.body, read.headers["ETag"]) == (200, created.body, '"1"')
    changed = await service.call("PATCH", path, {"name": "Zephyra AG"}, If_Match='"1"')
    assert (changed.status, changed.body["name"], changed.headers["ETag"]) == (200, "Zephyra AG", '"2"')
    assert changed.body["time_zone"] == "Asia/Jakarta"


async def test_a_change_names_the_version_that_it_changes(service: Service) -> None:
    path = f"/v1/advertisers/{await advertiser(service)}"
    missing = await service.call("PATCH", path, {"name": "b"})
    assert (missing.status, missing.fields) == (428, ["If-Match"])
    outdated = await service.call("PATCH", path, {"name": "b"}, If_Match='"7"')
    assert (outdated.status, outdated.fields) == (412, ["If-Match"])
    both = await asyncio.gather(
        *(service.call("PATCH", path, {"name": name}, If_Match='"1"') for name in ("b", "c"))
    )
    assert sorted(reply.status for reply in both) == [200, 412]
    assert (await service.call("PATCH", path, {"name": "d"}, If_Match="*")).status == 200


async def test_pausing_resuming_and_archiving(service: Service) -> None:
    path = f"/v1/advertisers/{await advertiser(service)}"
    for verb, status in (
        ("pause", "paused"),
        ("pause", "paused"),
        ("resume", "active"),
        ("archive", "archived"),
    ):
        reply = await service.call("POST", f"{path}/{verb}")
        assert (reply.status, reply.body["status"]) == (200, status)
    assert (await service.call("POST", f"{path}/archive")).status == 200
    assert (await service.call("POST", f"{path}/resume")).status == 409
    assert (await service.call("PATCH", path, {"name": "b"}, If_Match="*")).status == 409


async def test_an_archived_advertiser_sets_nothing_up(service: Service) -> None:
    ids = await service.plant()
    key = await service.issue("advertiser", advertiser=ids["advertiser"])
    await service.call("POST", f"/v1/advertisers/{ids['advertiser']}/archive")
    for path, body in (
        ("/v1/campaigns", campaign_body(ids["advertiser"])),
        ("/v1/creatives", await service.creative_body(ids["advertiser"])),
        ("/v1/ads", {"campaign": ids["campaign"], "creative": ids["creative"]}),
    ):
        for caller in ("operator", key):
            reply = await service.call("POST", path, body, key=caller)
            assert (reply.status, "The advertiser is archived" in reply.body["detail"]) == (409, True), path


async def test_lists_are_paged_by_an_opaque_cursor(service: Service) -> None:
    made = [await advertiser(service, f"a{n}") for n in range(5)]
    seen: list[int] = []
    after = ""
    for _ in range(3):
        page = (await service.call("GET", f"/v1/advertisers?limit=2{after}")).body
        seen += [item["id"] for item in page["items"]]
        after = f"&after={page['next']}"
    assert (seen, page["next"]) == (made, None)
    for cursor in ("x", "MQ", "WzFd%00", "WyJ4Il0", "WzldWw", "WzkyMjMzNzIwMzY4NTQ3NzU4MDhd"):
        reply = await service.call("GET", f"/v1/advertisers?after={cursor}")
        assert (reply.status, reply.fields) == (400, ["?after"]), cursor


async def test_the_same_idempotency_key_creates_once(service: Service) -> None:
    calls = [
        service.call("POST", "/v1/advertisers", {"name": "once"}, Idempotency_Key="k-1") for _ in range(8)
    ]
    replies = await asyncio.gather(*calls)
    assert {reply.status for reply in replies} == {201}
    assert len({reply.raw for reply in replies}) == 1
    assert {reply.headers["ETag"] for reply in replies} == {'"1"'}
    assert len({reply.headers["Location"] for reply in replies}) == 1
    assert len((await service.call("GET", "/v1/advertisers")).body["items"]) == 1
    other = await service.call("POST", "/v1/advertisers", {"name": "twice"}, Idempotency_Key="k-1")
    assert (other.status, other.fields) == (409, ["Idempotency-Key"])
    elsewhere = await service.call(
        "POST", f"/v1/advertisers/{replies[0].body['id']}/deposits", DEPOSIT, Idempotency_Key="k-1"
    )
    assert elsewhere.status == 409


async def test_control_without_the_first_answers_table_a_retry_creates_twice(service: Service) -> None:
    body: dict[str, Any] = {"name": "twice"}
    await service.made("/v1/advertisers", body, Idempotency_Key="k")
    async with service.pools.operator.acquire() as connection:
        await connection.execute("DELETE FROM idempotent_answers")
    await service.made("/v1/advertisers", body, Idempotency_Key="k")
    assert len((await service.call("GET", "/v1/advertisers")).body["items"]) == 2


async def test_a_refused_call_leaves_its_idempotency_key_free(service: Service) -> None:
    bad = await service.call(
        "POST", "/v1/advertisers", {"name": "a", "time_zone": "Mars"}, Idempotency_Key="k"
    )
    assert (bad.status, bad.fields) == (400, ["$.time_zone"])
    await service.made("/v1/advertisers", {"name": "a"}, Idempotency_Key="k")


async def test_deposits_become_balance(service: Service) -> None:
    id_ = await advertiser(service)
    path = f"/v1/advertisers/{id_}"
    for key in ("d-1", "d-1", "d-2"):
        await service.made(f"{path}/deposits", DEPOSIT, Idempotency_Key=key)
    balance = (await service.call("GET", f"{path}/balance")).body
    assert balance["advertiser"] == id_
    assert balance["balances"] == [
        {
            "currency": "USD",
            "available": {"micros": 10_000_000, "currency": "USD"},
            "promotional": {"micros": 0, "currency": "USD"},
            "credit_line": {"micros": 0, "currency": "USD"},
            "owed": {"micros": 0, "currency": "USD"},
            "held": {"micros": 0, "currency": "USD"},
            "spent": {"micros": 0, "currency": "USD"},
        }
    ]
    key = await service.issue("advertiser", advertiser=id_)
    assert (await service.call("GET", f"{path}/balance", key=key)).body == balance
    assert (await service.call("POST", f"{path}/deposits", DEPOSIT, key=key)).status == 403
    assert (await service.call("POST", "/v1/advertisers/999/deposits", DEPOSIT)).status == 404


async def test_a_deposit_is_a_whole_positive_amount(service: Service) -> None:
    path = f"/v1/advertisers/{await advertiser(service)}/deposits"
    bad: list[tuple[dict[str, Any], str]] = [
        ({"micros": 0, "currency": "USD"}, "$.amount.micros"),
        ({"micros": 1 << 53, "currency": "USD"}, "$.amount.micros"),
        ({"micros": 1.5, "currency": "USD"}, "$.amount.micros"),
        ({"micros": 1, "currency": "usd"}, "$.amount.currency"),
        ({"micros": 1, "currency": "USD\n"}, "$.amount.currency"),
        ({"micros": 1}, "$.amount.currency"),
    ]
    for amount, field in bad:
        reply = await service.call("POST", path, {"amount": amount})
        assert (reply.status, reply.fields) == (400, [field]), amount
