"""A plan in a whole service: viewers are drawn, the feed service tells how they fared, and harm takes the step back."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from adserve import settings
from adserve.access.keys import Scope
from adserve.bootstrap.ramps import Walking
from adserve.bootstrap.service import Service, start
from adserve.commands.scratch import issue_key
from adserve.domain.time import MINUTE_MS

VIEWERS = [f"viewer-{number}" for number in range(240)]
PLAN = {
    "surface": "status",
    "countries": ["ID"],
    "steps": [{"percent": 50, "min_time_s": 60, "min_viewers": 50}, {"percent": 100, "min_time_s": 60}],
    "guardrails": [{"metric": "session_seconds", "direction": "falls", "bound": 0.05, "min_viewers": 50}],
}


@pytest.fixture
async def service(database_url: str, clock: Any, tmp_path: Path) -> AsyncIterator[Service]:
    loaded = settings.load(data_home=str(tmp_path), port=0)
    service = await start(loaded, database_url, clock=clock, background=False)
    yield service
    await service.stop()


@pytest.fixture
async def session(service: Service) -> AsyncIterator[aiohttp.ClientSession]:
    key = await issue_key(service.core, "a test", Scope.FEED, Scope.OPERATOR)
    async with aiohttp.ClientSession(service.url, headers={"Authorization": f"Bearer {key}"}) as session:
        yield session


async def call(session: aiohttp.ClientSession, method: str, path: str, body: Any = None) -> Any:
    async with session.request(method, path, json=body) as answer:
        assert answer.status in (200, 201), await answer.text()
        return await answer.json()


async def shown_to(session: aiohttp.ClientSession) -> set[str]:
    """Viewers whom a slot request does not find outside the rollout."""
    shown = set()
    for viewer in VIEWERS:
        ask = {"viewer": viewer, "feed_length": 30, "context": {"country": "ID"}, "deadline_ms": 1_000}
        if (await call(session, "POST", "/v1/slots", ask))["no_fill"] != "not_in_rollout":
            shown.add(viewer)
    return shown


@pytest.mark.parametrize(("seconds", "status", "share"), [(40, "rolled_back", 0.0), (100, "running", 1.0)])
async def test_harm_takes_a_step_back_and_no_harm_lets_it_go_on(
    service: Service,
    session: aiohttp.ClientSession,
    clock: Any,
    seconds: int,
    status: str,
    share: float,
) -> None:
    walking = Walking(service.core.pools.operator)
    id_ = (await call(session, "POST", "/v1/ramps", PLAN))["id"]
    await walking.step(clock())
    await service.run_tasks(clock())
    exposed = await shown_to(session)
    assert len(exposed) / len(VIEWERS) == pytest.approx(0.5, abs=0.15)
    outcomes = [
        {"id": viewer, "viewer": viewer, "country": "ID",
         "session_seconds": (seconds if viewer in exposed else 100) + number % 10}
        for number, viewer in enumerate(VIEWERS)
    ]  # fmt: skip  # laid out as rows
    told = await call(session, "POST", "/v1/outcomes", {"outcomes": outcomes})
    assert {result["result"] for result in told["results"]} == {"recorded"}
    clock.advance(MINUTE_MS)
    await service.run_tasks(clock())
    await walking.step(clock())
    ramp = await call(session, "GET", f"/v1/ramps/{id_}")
    assert (ramp["status"], ramp["percent"]) == (status, 100 * share), ramp["reason"]
    (first, _) = ramp["steps"]
    assert (first["exposed"], first["control"]) == (len(exposed), len(VIEWERS) - len(exposed))
    await service.run_tasks(clock())
    assert len(await shown_to(session)) == share * len(VIEWERS)
    (*_, last) = (await call(session, "GET", f"/v1/ramps/{id_}/history"))["items"]
    assert (last["act"], last["by"], last["reason"]) == ("look", None, ramp["reason"])
    assert last["seen"]["verdicts"][0]["finding"] == ("breached" if share == 0 else "fine")
    assert not last["seen"]["mismatch"]["found"]
