"""A decision, explained when it is made, then from what was recorded: by HTTP and from the command line."""

import asyncio
import json
from typing import Any
from uuid import uuid4

import pytest
from service import Service
from world import superuser

from adserve.__main__ import main
from adserve.access.keys import Key
from adserve.domain.ids import KeyId
from adserve.domain.time import DAY_MS, day_of
from adserve.store.decisions import Decisions
from adserve.store.erasures import Erasures

RAW = "somebody-with-a-name"
ASK = {
    "viewer": RAW,
    "feed": [{"id": f"item-{n}", "author": f"author-{n}"} for n in range(12)],
    "context": {"country": "ID", "age": 27, "interests": ["music"], "custom": {"phone": "555-0100"}},
    "consent": {"personalised": True},
}


async def explained(service: Service, **more: Any) -> dict[str, object]:
    reply = await service.call("POST", "/v1/slots", ASK | {"explain": True} | more)
    assert reply.status == 200
    await service.recording.step(service.clock())
    body: dict[str, object] = reply.body
    return body


async def test_what_was_explained_is_told_again(service: Service) -> None:
    ids = await service.plant(caps=[{"scope": "campaign", "count": 2, "window_s": 3_600}])
    await service.plant()
    await service.go_live()
    answer = await explained(service)
    for scope in ("operator", "analyst"):
        reply = await service.call("GET", f"/v1/decisions/{answer['decision']}", key=scope)
        assert reply.status == 200
        assert reply.body["same"] is True
        assert reply.body["explanation"] == answer["explanation"]
        assert [placed["position"] for placed in reply.body["placements"]] == [
            placed["position"] for placed in answer["placements"]
        ]
    # The catalogue moves on; what was recorded is of its moment.
    await service.call("POST", f"/v1/campaigns/{ids['campaign']}/archive")
    await service.step()
    again = await service.call("GET", f"/v1/decisions/{answer['decision']}", key="analyst")
    assert again.body == reply.body


async def test_an_ad_of_two_snapshots_is_stored_once(service: Service) -> None:
    await service.plant()
    await service.go_live()
    decisions = []
    for _ in range(2):
        decisions.append((await service.call("POST", "/v1/slots", ASK | {"explain": True})).body["decision"])
        await service.plant()
        await service.step()
    await service.recording.step(service.clock())
    for decision in decisions:
        assert (await service.call("GET", f"/v1/decisions/{decision}", key="analyst")).body["same"] is True


async def test_nobody_else_reads_it_and_what_is_not_there_is_404(service: Service) -> None:
    ids = await service.plant()
    await service.go_live()
    path = f"/v1/decisions/{(await explained(service))['decision']}"
    tenant = await service.issue("advertiser", "analyst", advertiser=ids["advertiser"])
    assert (await service.call("GET", path, key="feed")).status == 403
    assert (await service.call("GET", path, key=tenant)).status == 403
    for unknown in ("019b7800-0000-7000-8000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"):
        assert (await service.call("GET", f"/v1/decisions/{unknown}", key="analyst")).status == 404
    assert (await service.call("GET", "/v1/decisions/1", key="analyst")).status == 404


async def test_what_cannot_be_made_again_is_404(service: Service, database_url: str) -> None:
    await service.plant()
    await service.go_live()
    path = f"/v1/decisions/{(await explained(service))['decision']}"
    owner = await superuser(database_url)
    await owner.execute("DELETE FROM ad_versions")
    await owner.close()
    reply = await service.call("GET", path, key="analyst")
    assert reply.status == 404
    assert "the facts of an ad are gone" in reply.body["detail"]


async def test_what_waited_while_its_viewer_was_erased_is_not_recorded(service: Service) -> None:
    """As in a process that could not hear of the erasure."""
    await service.plant()
    await service.go_live()
    made = (await service.call("POST", "/v1/slots", ASK | {"explain": True})).body
    (waiting,) = service.recording._queue
    erasures, caller = Erasures(service.pools.recorder), Key(KeyId(1), "somebody's", frozenset(), None)
    await erasures.ask(waiting.ask.viewer.cap, uuid4(), caller, service.clock())
    await service.recording.step(service.clock())
    again = await explained(service, viewer="somebody else")
    for answer, status in ((made, 404), (again, 200)):
        assert (
            await service.call("GET", f"/v1/decisions/{answer['decision']}", key="analyst")
        ).status == status


async def test_no_raw_viewer_is_at_rest(service: Service, database_url: str) -> None:
    await service.plant()
    await service.go_live()
    await explained(service)
    owner = await superuser(database_url)
    rows = await owner.fetch("SELECT record FROM recorded_decisions UNION ALL SELECT facts FROM ad_versions")
    await owner.close()
    written = b"".join(row[0] for row in rows)
    assert b"Slow down." in written, "control: what is there is found"
    for secret in (RAW, "author-", "item-", "555-0100"):
        assert secret.encode() not in written


async def test_the_command_shows_it_and_makes_it_again(
    service: Service, database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ADSERVE_DATABASE_URL", database_url)
    await service.plant()
    await service.go_live()
    decision = str((await explained(service))["decision"])
    assert await asyncio.to_thread(main, ["explain", decision]) == 0
    said = capsys.readouterr().out
    assert "placed after 3" in said
    assert said.rstrip().endswith("same result")
    assert await asyncio.to_thread(main, ["explain", decision, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["same"] is True
    assert await asyncio.to_thread(main, ["explain", "019b7800-0000-7000-8000-000000000000"]) == 1
    assert "not recorded" in capsys.readouterr().err


async def test_control_with_facts_that_changed_it_is_not_the_same(
    service: Service, database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ADSERVE_DATABASE_URL", database_url)
    await service.plant()
    await service.go_live()
    decision = str((await explained(service, floor={"micros": 1_500_000, "currency": "USD"}))["decision"])
    owner = await superuser(database_url)
    (facts,) = await owner.fetchrow("SELECT facts FROM ad_versions")
    price = b"bid_micros\xce" + (2_000_000).to_bytes(4, "big")
    assert price in facts
    cheaper = facts.replace(price, b"bid_micros\xce" + (1_000).to_bytes(4, "big"))
    await owner.execute("UPDATE ad_versions SET facts = $1", cheaper)
    await owner.close()
    assert await asyncio.to_thread(main, ["explain", decision]) == 1
    assert "NOT the same result" in capsys.readouterr().out


async def test_old_ones_go_with_their_day(service: Service, clock: Any) -> None:
    await service.plant()
    await service.go_live()
    path = f"/v1/decisions/{(await explained(service))['decision']}"
    async with service.pools.owner.acquire() as connection:
        assert (
            await connection.fetchval("SELECT drop_partitions('recorded_decisions', $1)", day_of(clock())) > 0
        )
        assert (await service.call("GET", path, key="analyst")).status == 200
        tomorrow = day_of(clock() + DAY_MS)
        assert await connection.fetchval("SELECT drop_partitions('recorded_decisions', $1)", tomorrow) == 1
    assert (await service.call("GET", path, key="analyst")).status == 404
    await Decisions(service.pools.recorder).forget_versions(tomorrow)
    assert await service.pools.analyst.fetchval("SELECT count(*) FROM ad_versions") == 0
