import asyncio

import pytest
from service import Service
from waiting import PATIENCE_S

from adserve.store import rollouts


async def test_the_rollout_is_read_as_it_was_put(service: Service) -> None:
    empty = await service.call("GET", "/v1/rollout")
    assert empty.body == {"surfaces": {}, "paused": False}
    surfaces = {"status": {"percent": 0.01, "countries": {"ID": 12.34, "SG": 100}, "holdout_percent": 1}}
    put = await service.call("PUT", "/v1/rollout", {"surfaces": surfaces})
    assert (put.status, put.body) == (200, {"surfaces": surfaces, "paused": False})
    assert (await service.call("GET", "/v1/rollout")).body == put.body
    await service.call("PUT", "/v1/rollout", {"surfaces": {}})
    assert (await service.call("GET", "/v1/rollout")).body == empty.body


async def test_two_operators_at_once_leave_one_rollout(service: Service) -> None:
    puts = [{"surfaces": {"status": {"percent": percent}}} for percent in range(8)]
    replies = await asyncio.gather(*(service.call("PUT", "/v1/rollout", body) for body in puts))
    assert {reply.status for reply in replies} == {200}


async def test_a_bad_rollout_is_refused_by_field(service: Service) -> None:
    for surfaces, field in (
        ({"status": {"percent": 101}}, "$.surfaces[...].percent"),
        ({"status": {"percent": -1}}, "$.surfaces[...].percent"),
        ({"status": {"percent": "5"}}, "$.surfaces[...].percent"),
        ({"status": {"percent": 0.001}}, "$.surfaces.status.percent"),
        ({"status": {"percent": 1, "holdout_percent": 0.125}}, "$.surfaces.status.holdout_percent"),
        ({"status": {"percent": 1, "countries": {"ID": 0.333}}}, "$.surfaces.status.countries.ID"),
        ({"status": {"percent": 1, "countries": {"id": 1}}}, "$.surfaces[...].countries"),
        ({"status": {}}, "$.surfaces[...].percent"),
        ({"stories": {"percent": 1}}, "$.surfaces.stories"),
    ):
        reply = await service.call("PUT", "/v1/rollout", {"surfaces": surfaces})
        assert (reply.status, reply.fields) == (400, [field]), surfaces


async def test_a_pause_says_how_many_replicas_obey(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    none = await service.call("POST", "/v1/rollout/pause")
    assert none.body == {"applied": 0, "replicas": 0}
    await service.step()
    assert service.live.current().paused

    async def obey() -> None:
        await asyncio.sleep(0.1)
        await service.step()

    with monkeypatch.context() as patient:
        patient.setattr(rollouts, "APPLIED_WITHIN_S", PATIENCE_S)
        resumed, _ = await asyncio.gather(service.call("POST", "/v1/rollout/resume"), obey())
    assert resumed.body == {"applied": 1, "replicas": 1}
    assert not service.live.current().paused
    deaf = await service.call("POST", "/v1/rollout/pause")
    assert deaf.body == {"applied": 0, "replicas": 1}
    switch = await service.call("GET", "/v1/rollout/switch")
    assert switch.body == {"applied": 0, "replicas": 1, "paused": True}
    assert (await service.call("GET", "/v1/rollout")).body["paused"] is True
