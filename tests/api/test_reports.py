"""The funnel as analysts and advertisers read it."""

from typing import Any
from uuid import UUID

from service import Service

from adserve.domain.time import HOUR_MS, SECOND_MS
from adserve.selection.funnel import Funnel
from adserve.store.funnel import FunnelStore
from adserve.web.paging import encode_cursor

STEPS = ("eligible", "targeted", "ranked", "in_budget", "under_cap", "placed", "impressions", "clicks")


async def ask(service: Service, viewer: str, country: str = "ID") -> list[str]:
    body = {"viewer": viewer, "feed_length": 12, "max_ads": 1, "context": {"country": country}}
    reply = await service.call("POST", "/v1/slots", body, key="feed")
    assert reply.status == 200
    return [placed["ticket"] for placed in reply.body["placements"]]


async def send(service: Service, ticket: str, kind: str) -> None:
    body = {"events": [{"ticket": ticket, "kind": kind}]}
    assert (await service.call("POST", "/v1/events", body, key="feed")).status == 200


async def report(service: Service, query: str = "", key: str = "analyst") -> Any:
    await FunnelStore(service.pools.recorder, UUID(int=9)).merge(service.clock())
    reply = await service.call("GET", f"/v1/reports/funnel{query}", key=key)
    assert reply.status == 200, reply
    return reply.body


async def test_every_step_of_a_campaign_is_counted_by_hour(service: Service, clock: Any) -> None:
    wanted = await service.plant(
        targeting={"countries": ["ID"]}, caps=[{"scope": "campaign", "count": 1, "window_s": 7_200}]
    )
    other = await service.plant(bid={"model": "cpm", "price": {"micros": 1_000_000, "currency": "USD"}})
    await service.go_live()
    for viewer in ("a", "b", "c"):
        (ticket,) = await ask(service, viewer)
        await send(service, ticket, "impression")
    await send(service, ticket, "click")
    await ask(service, "a")
    await ask(service, "d", country="DE")
    clock.advance(SECOND_MS)
    await service.funnel.step(clock())
    clock.advance(HOUR_MS)
    await service.step()
    await ask(service, "e")
    clock.advance(SECOND_MS)
    await service.funnel.step(clock())

    told = await report(service)
    rows = {(row["hour"][11:13], row["campaign"]): [row[step] for step in STEPS] for row in told["items"]}
    assert rows == {
        ("00", wanted["campaign"]): [5, 4, 4, 4, 3, 3, 3, 1],
        ("00", other["campaign"]): [5, 5, 5, 5, 5, 2, 0, 0],
        ("01", wanted["campaign"]): [1, 1, 1, 1, 1, 1, 0, 0],
        ("01", other["campaign"]): [1, 1, 1, 1, 1, 0, 0, 0],
    }
    assert told["next"] is None
    assert [hour["covered_s"] for hour in told["coverage"]] == [3_600.0, 2.0]
    assert all(hour["gaps"] == [] for hour in told["coverage"])
    one = await report(service, f"?campaign={other['campaign']}&from=2026-01-01T01:00:00Z")
    assert [row["campaign"] for row in one["items"]] == [other["campaign"]]


async def test_a_catalogue_that_changes_within_a_second_is_no_trouble(service: Service, clock: Any) -> None:
    ids = await service.plant()
    await service.go_live()
    for name in ("one", "two", "three"):
        await ask(service, name)
        await service.call("PATCH", f"/v1/campaigns/{ids['campaign']}", {"name": name}, If_Match="*")
        await service.step()
    late = await service.plant()
    await service.step()
    await ask(service, "four")
    clock.advance(SECOND_MS)
    await service.funnel.step(clock())
    rows = {row["campaign"]: row["eligible"] for row in (await report(service))["items"]}
    assert rows == {ids["campaign"]: 4, late["campaign"]: 1}


async def test_pages_join_to_the_whole(service: Service, clock: Any) -> None:
    for _ in range(3):
        await service.plant()
    await service.go_live()
    for hour in range(3):
        (ticket,) = await ask(service, f"v-{hour}")
        await send(service, ticket, "impression")
        clock.advance(HOUR_MS)
        await service.step()
        await service.funnel.step(clock())
    whole = (await report(service))["items"]
    assert len(whole) == 9
    found, after = [], ""
    while True:
        page = await report(service, f"?limit=2{after}")
        found += page["items"]
        if page["next"] is None:
            break
        after = f"&after={page['next']}"
    assert found == whole


async def test_an_advertiser_sees_its_own_campaigns_alone(service: Service, clock: Any) -> None:
    mine, theirs = await service.plant(), await service.plant()
    await service.go_live()
    await ask(service, "a")
    clock.advance(SECOND_MS)
    await service.funnel.step(clock())
    assert len((await report(service))["items"]) == 2
    key = await service.issue("advertiser", advertiser=mine["advertiser"])
    assert [row["campaign"] for row in (await report(service, key=key))["items"]] == [mine["campaign"]]
    assert (await report(service, f"?campaign={theirs['campaign']}", key=key))["items"] == []


async def test_a_crashed_second_is_a_gap_and_no_zero(service: Service, clock: Any) -> None:
    await service.plant()
    await service.go_live()
    start_ms = clock()
    for _ in range(3):
        await ask(service, "a")
        clock.advance(SECOND_MS)
        await service.funnel.step(clock())
    (ticket,) = await ask(service, "lost")  # counted, and lost in the crash with the second that it is of
    await send(service, ticket, "impression")
    clock.advance(30 * SECOND_MS)
    successor = Funnel(FunnelStore(service.pools.recorder, UUID(int=2)), clock())
    clock.advance(SECOND_MS)
    await successor.step(clock())

    told = await report(service)
    (row,), (hour,) = told["items"], told["coverage"]
    assert (row["eligible"], row["impressions"]) == (3, 1)
    assert hour["covered_s"] == 4.0
    assert hour["gaps"] == [{"from": "2026-01-01T00:00:03Z", "to": "2026-01-01T00:00:33Z"}]
    assert start_ms % HOUR_MS == 0


async def test_control_an_orderly_end_is_no_gap(service: Service, clock: Any) -> None:
    await service.plant()
    await service.go_live()
    await ask(service, "a")
    clock.advance(3 * SECOND_MS)
    await service.funnel.step(clock(), ended=True)
    clock.advance(30 * SECOND_MS)
    assert (await report(service))["coverage"] == [
        {"hour": "2026-01-01T00:00:00Z", "covered_s": 3.0, "gaps": []}
    ]


async def test_of_an_hour_that_nobody_counted_the_ledger_alone_tells(service: Service, clock: Any) -> None:
    ids = await service.plant()
    await service.go_live()
    (ticket,) = await ask(service, "a")
    await send(service, ticket, "impression")
    (row,) = (await report(service))["items"]
    assert (row["campaign"], row["impressions"]) == (ids["campaign"], 1)
    assert all(row[step] is None for step in STEPS[:6])


async def test_a_flush_that_was_saved_is_not_counted_again(service: Service, clock: Any) -> None:
    """As when the answer to a commit was lost, and what it saved has been merged meanwhile."""
    await service.plant()
    await service.go_live()
    await ask(service, "a")
    store = FunnelStore(service.pools.recorder, UUID(int=1))
    calls: list[Any] = []

    class Lossy:
        async def save(self, *given: Any, ended: bool) -> None:
            await store.save(*given, ended=ended)
            calls.append(given)
            if len(calls) == 1:
                raise ConnectionError

    service.funnel._store = Lossy()
    clock.advance(SECOND_MS)
    for _ in range(2):
        try:
            await service.funnel.step(clock())
        except ConnectionError:
            await store.merge(clock())
    assert len(calls) == 2
    assert calls[0][3] == calls[1][3], "control: it was sent twice"
    (row,) = (await report(service))["items"]
    assert row["eligible"] == 1


async def test_bad_questions_name_their_field(service: Service) -> None:
    for query, field in (
        ("?from=1990-01-01T00:00:00Z", "?from"),
        ("?from=2025-01-01T00:00:00Z", "?from"),
        ("?after=zzz", "?after"),
        (f"?after={encode_cursor('0001-01-01T00:00:00+23:00', 1)}", "?after"),
        ("?campaign=x", "?campaign"),
    ):
        reply = await service.call("GET", f"/v1/reports/funnel{query}", key="analyst")
        assert (reply.status, reply.fields) == (400, [field])
    assert (await service.call("GET", "/v1/reports/funnel", key="feed")).status == 403
